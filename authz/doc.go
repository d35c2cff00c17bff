// Package authz says who calls and what they may call, and what an account's plan entitles
// it to. It is pure: no I/O, no clock.
//
// It is not authentication of end users, and an entitlement is not a permission: a caller
// without permission gets an error, an account without entitlement gets a denial.
package authz
