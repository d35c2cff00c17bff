// Package tour runs the tour of the README as a new user would: every block, in order, in a copy
// of the repository with nothing built, and compares what is printed with what the README shows.
package tour
