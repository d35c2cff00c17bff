//go:build race

package escrow

const underRace = true
