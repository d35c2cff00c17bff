package deployschema

import (
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
)

// TestComposeFile loads the file as docker compose does: schema, anchors, names of services,
// volumes and dependencies.
func TestComposeFile(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{"../../deploy/compose/compose.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(project.Services) != 8 {
		t.Errorf("services = %v", project.ServiceNames())
	}
	for name, service := range project.Services {
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes port %s on %q: only loopback may reach plain text", name, port.Published, port.HostIP)
			}
		}
		for _, volume := range service.Volumes {
			if _, declared := project.Volumes[volume.Source]; volume.Type == "volume" && !declared {
				t.Errorf("%s mounts volume %q, which is not declared", name, volume.Source)
			}
			if volume.Type == "bind" {
				mustExist(t, volume.Source)
			}
		}
	}
}
