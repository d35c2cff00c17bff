package completion

import (
	_ "embed"
	"fmt"
)

//go:embed bash.sh
var bash string

//go:embed zsh.sh
var zsh string

//go:embed fish.fish
var fish string

// Script is what a shell has to read. It panics for a shell that is not bash, zsh or fish.
func Script(shell string) string {
	switch shell {
	case "bash":
		return bash
	case "zsh":
		return zsh
	case "fish":
		return fish
	}
	panic(fmt.Sprintf("completion: no script for %q", shell))
}
