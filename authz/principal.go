package authz

import "github.com/purser-io/purser/quota/label"

// Role is what a key's holder may call.
type Role uint8

// Roles, from the weakest. They do not nest: a gate may not read what a viewer may.
const (
	RoleNone   Role = iota
	RoleGate        // the data plane: reserve, commit, release, check, balance
	RoleViewer      // reads everything, changes nothing
	RoleAdmin       // everything
)

// String is the role's name as keys and messages spell it.
func (r Role) String() string {
	switch r {
	case RoleGate:
		return "gate"
	case RoleViewer:
		return "viewer"
	case RoleAdmin:
		return "admin"
	}
	return "none"
}

// Principal is who calls. Tokens are bound to its Name, not to a key, so that a key can be
// rotated in the middle of a stream (R38).
type Principal struct {
	Name    string
	Role    Role
	Account string    // when set, the only account the key may name (R38)
	Labels  label.Set // bound to the key; they win over labels sent
	KeyID   string
}

// MayUseAccount reports whether the principal may name account on the data plane.
func (p *Principal) MayUseAccount(account string) bool {
	return p.Account == "" || p.Account == account
}
