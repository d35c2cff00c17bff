package host

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"syscall"
	"time"
)

// CPU is the processor time that this process has used, in user and kernel mode.
func CPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// rss is the memory of this process that is in use, as the kernel counts it; 0 where there is
// no /proc.
func rss() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(string(fields[1]), 10, 64) // 0 = not known
	return pages * int64(os.Getpagesize())
}

// profile begins a CPU profile of this process, or completes it if path is "".
func (h *Host) profile(path string) error {
	if path == "" {
		if h.profiling == nil {
			return nil
		}
		pprof.StopCPUProfile()
		err := h.profiling.Close()
		h.profiling = nil
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Join(err, f.Close())
	}
	h.profiling = f
	return nil
}

// churn leaves garbage of the sizes that requests leave until the collector has run twice, so
// that the heap has been as large as it lets it grow.
func churn() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	for end := m.NumGC + 2; m.NumGC < end; runtime.ReadMemStats(&m) {
		for i := range 1 << 16 {
			runtime.KeepAlive(make([]byte, 16+i%512))
			runtime.KeepAlive(make([]*byte, 1+i%32))
		}
	}
}
