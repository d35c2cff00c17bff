package session

import purserv1 "github.com/purser-io/purser/proto/purser/v1"

// Kind is what an operation does.
type Kind uint8

// Kinds of operations.
const (
	None Kind = iota // the call is missing
	CheckAndReserve
	Commit
	Release
	Extend
	Check
	GetBalance
	Kinds // how many there are
)

// methods are the single calls that operations are as.
var methods = [Kinds]string{"Session", "CheckAndReserve", "Commit", "Release", "Extend", "Check", "GetBalance"}

// String is the name of the single call.
func (k Kind) String() string { return methods[k] }

// Method is the full name of the single call.
func (k Kind) Method() string { return fullMethods[k] }

var fullMethods = [Kinds]string{
	purserv1.AuthorityService_Session_FullMethodName, purserv1.AuthorityService_CheckAndReserve_FullMethodName,
	purserv1.AuthorityService_Commit_FullMethodName, purserv1.AuthorityService_Release_FullMethodName,
	purserv1.AuthorityService_Extend_FullMethodName, purserv1.AuthorityService_Check_FullMethodName,
	purserv1.AuthorityService_GetBalance_FullMethodName,
}

// KindOf tells what an operation does, and the token it does it to, if any.
func KindOf(op *purserv1.Operation) (k Kind, token []byte) {
	switch c := op.GetCall().(type) {
	case *purserv1.Operation_CheckAndReserve:
		return CheckAndReserve, nil
	case *purserv1.Operation_Commit:
		return Commit, c.Commit.GetToken()
	case *purserv1.Operation_Release:
		return Release, c.Release.GetToken()
	case *purserv1.Operation_Extend:
		return Extend, c.Extend.GetToken()
	case *purserv1.Operation_Check:
		return Check, nil
	case *purserv1.Operation_GetBalance:
		return GetBalance, nil
	}
	return None, nil
}
