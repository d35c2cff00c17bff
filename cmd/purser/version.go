package main

import (
	"cmp"
	"io"
	"runtime"
	"runtime/debug"
)

type versionCmd struct{}

// version is what the toolchain stamped into the program.
type version struct {
	Version  string `json:"version"` // of the module: a tag, or made from the revision
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"` // of the revision, RFC 3339
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func programVersion() version {
	v := version{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Version = cmp.Or(info.Main.Version, v.Version)
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.time":
			v.Time = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

// Run prints what the toolchain stamped into the program.
func (versionCmd) Run(e *env) error {
	v := programVersion()
	return e.out.emit(v, func(w io.Writer) {
		printLine(w, "purser %s (%s, %s)", v.Version, v.Go, v.Platform)
		if v.Revision != "" {
			printLine(w, "revision %s of %s", v.Revision, v.Time)
		}
		if v.Modified {
			printLine(w, "built from a tree with changes that are not committed")
		}
	})
}
