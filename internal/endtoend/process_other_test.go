//go:build !linux

package endtoend

import "syscall"

// orphan does nothing here: a child may outlive tests that are killed.
func orphan() *syscall.SysProcAttr { return nil }
