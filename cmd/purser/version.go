package main

import (
	"io"
	"runtime/debug"
)

type versionCmd struct{}

// Run prints what the toolchain stamped into the program.
func (versionCmd) Run(e *env) error {
	version := map[string]string{"version": "unknown"}
	if info, ok := debug.ReadBuildInfo(); ok {
		version["version"], version["go"] = info.Main.Version, info.GoVersion
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" || s.Key == "vcs.time" {
				version[s.Key] = s.Value
			}
		}
	}
	return e.out.emit(version, func(w io.Writer) {
		printLine(w, "purser %s (%s) %s", version["version"], version["go"], version["vcs.revision"])
	})
}
