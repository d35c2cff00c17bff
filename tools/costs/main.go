// Command costs tells where the server's time for one call goes, from the CPU profiles that
// purser bench --profiles writes. Each sample counts for the innermost of its frames that a part
// of the server is known by, so the parts add up.
//
//	purser bench run --only reserve --profiles DIR --output json >bench.json
//	go run -C tools ./costs bench.json DIR/echo-interceptors.pprof DIR/reserve-hot.pprof
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// part is a part of the server, known by how the names of its functions begin.
type part struct {
	name   string
	frames []string
}

// parts are looked at from the innermost frame outwards; the first that matches counts.
var parts = []part{
	{"garbage collection", []string{"runtime.gcBgMarkWorker", "runtime.gcAssistAlloc", "runtime.bgsweep", "runtime.bgscavenge", "runtime.gcStart", "runtime.gcMarkTermination"}},
	{"allocation", []string{"runtime.mallocgc", "runtime.newobject", "runtime.makeslice", "runtime.growslice", "runtime.(*mcache)"}},
	{"system calls: read, write, poll", []string{"internal/runtime/syscall", "syscall.", "internal/poll.", "runtime.netpoll", "runtime.entersyscall", "runtime.exitsyscall"}},
	{"the scheduler", []string{"runtime.schedule", "runtime.findRunnable", "runtime.mcall", "runtime.park_m", "runtime.goready", "runtime.ready", "runtime.futex", "runtime.mstart", "runtime.wakep", "runtime.systemstack"}},
	{"escrow: deciding, holding", []string{"github.com/purser-io/purser/quota/escrow."}},
	{"token: encoding, signing", []string{"github.com/purser-io/purser/quota/token.", "crypto/"}},
	{"authority: resolving, remembering", []string{"github.com/purser-io/purser/quota"}},
	{"protobuf", []string{"google.golang.org/protobuf", "google.golang.org/grpc/encoding/proto", "google.golang.org/grpc.encode", "google.golang.org/grpc.decode"}},
	{"HTTP/2 transport", []string{"google.golang.org/grpc/internal/transport", "golang.org/x/net/http2", "google.golang.org/grpc/mem"}},
	{"interceptors: who calls, metrics, traces", []string{"github.com/purser-io/purser/server/interceptor", "github.com/purser-io/purser/server/caller", "github.com/purser-io/purser/server/telemetry", "github.com/prometheus", "go.opentelemetry.io", "github.com/purser-io/purser/authz"}},
	{"service: conversion, validation", []string{"github.com/purser-io/purser/server"}},
	{"gRPC", []string{"google.golang.org/grpc"}},
}

const other = "everything else"

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: costs BENCH.json PROFILE...")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "costs:", err)
		os.Exit(1)
	}
}

func run(bench string, files []string) error {
	perCall, err := readBench(bench)
	if err != nil {
		return err
	}
	header, rule := "| us of server CPU for a call |", "| --- |"
	shares := make([]map[string]float64, len(files))
	micros := make([]float64, len(files))
	for i, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".pprof")
		if micros[i] = perCall[name]; micros[i] == 0 {
			return fmt.Errorf("%s has no scenario %s", bench, name)
		}
		if shares[i], err = readProfile(file); err != nil {
			return err
		}
		header, rule = header+" "+name+" |", rule+" ---:|"
	}
	fmt.Println(header + "\n" + rule)
	for _, p := range append(parts, part{name: other}) {
		fmt.Printf("| %s |", p.name)
		for i := range files {
			fmt.Printf(" %.1f |", shares[i][p.name]*micros[i])
		}
		fmt.Println()
	}
	fmt.Print("| all |")
	for _, us := range micros {
		fmt.Printf(" %.1f |", us)
	}
	fmt.Println()
	return nil
}

// readBench returns each scenario's median of server CPU for a call, in microseconds, under the
// name of its profile.
func readBench(file string) (map[string]float64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var bench struct {
		Throughput []struct {
			Name   string    `json:"name"`
			Micros []float64 `json:"server_cpu_us"`
		} `json:"throughput"`
	}
	if err := json.Unmarshal(text, &bench); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	perCall := map[string]float64{}
	for _, s := range bench.Throughput {
		if len(s.Micros) > 0 {
			slices.Sort(s.Micros)
			perCall[strings.ReplaceAll(s.Name, ", ", "-")] = s.Micros[len(s.Micros)/2]
		}
	}
	return perCall, nil
}

// readProfile returns each part's share of the samples.
func readProfile(file string) (map[string]float64, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	counts, all := map[string]int64{}, int64(0)
	for _, s := range p.Sample {
		counts[partOf(s)] += s.Value[0]
		all += s.Value[0]
	}
	shares := map[string]float64{}
	for name, n := range counts {
		shares[name] = float64(n) / float64(max(all, 1))
	}
	return shares, nil
}

func partOf(s *profile.Sample) string {
	for _, location := range s.Location { // innermost first
		for _, line := range location.Line {
			for _, p := range parts {
				for _, frame := range p.frames {
					if strings.HasPrefix(line.Function.Name, frame) {
						return p.name
					}
				}
			}
		}
	}
	return other
}
