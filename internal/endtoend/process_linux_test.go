package endtoend

import "syscall"

// orphan makes the kernel kill a child when the thread that started it ends. See launcher.
func orphan() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
