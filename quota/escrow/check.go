package escrow

// Violation is the panic value of a broken invariant. There is no way to go on from one: the
// books in memory can no longer be trusted, while a crash is a path the protocol is built
// for. So it must end the process.
type Violation string

// Error implements error.
func (v Violation) Error() string { return "invariant violated: " + string(v) }

func check(ok bool, what string) {
	if !ok {
		panic(Violation(what))
	}
}
