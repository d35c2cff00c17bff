package deployschema

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
)

func mustExist(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// TestKubernetesManifests decodes every document as the API server does, strictly: a field
// that does not exist or stands twice is an error.
func TestKubernetesManifests(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, policyv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	raw, err := os.ReadFile("../../deploy/kubernetes/purser.yaml")
	if err != nil {
		t.Fatal(err)
	}
	documents := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(raw)))
	kinds := make(map[string]int)
	for {
		document := make([]byte, len(raw))
		n, err := documents.Read(document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		object, kind, err := decoder.Decode(document[:n], nil, nil)
		if err != nil {
			t.Errorf("%v\n%s", err, document[:n])
			continue
		}
		kinds[kind.Kind]++
		if d, ok := object.(*appsv1.Deployment); ok {
			checkDeployment(t, d)
		}
	}
	for kind, want := range map[string]int{"ServiceAccount": 1, "Service": 2, "PodDisruptionBudget": 1, "Deployment": 1} {
		if kinds[kind] != want {
			t.Errorf("%d documents of kind %s, want %d", kinds[kind], kind, want)
		}
	}
}

// checkDeployment checks what types do not: that names match each other.
func checkDeployment(t *testing.T, d *appsv1.Deployment) {
	t.Helper()
	pod := d.Spec.Template.Spec
	for key, value := range d.Spec.Selector.MatchLabels {
		if d.Spec.Template.Labels[key] != value {
			t.Errorf("the selector's %s=%s is not a label of the pods", key, value)
		}
	}
	volumes := make(map[string]bool)
	for _, v := range pod.Volumes {
		volumes[v.Name] = true
	}
	for _, c := range pod.Containers {
		ports := make(map[string]bool)
		for _, p := range c.Ports {
			ports[p.Name] = true
		}
		for name, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "readiness": c.ReadinessProbe, "liveness": c.LivenessProbe} {
			if probe == nil || !ports[probe.HTTPGet.Port.StrVal] {
				t.Errorf("the %s probe of %s asks no port of it", name, c.Name)
			}
		}
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				t.Errorf("%s mounts %q, which is no volume of the pod", c.Name, m.Name)
			}
		}
	}
}
