package authority

import (
	"context"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	engine "github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/server/session"
)

// Session see the contract.
func (s *Service) Session(stream purserv1.AuthorityService_SessionServer) error {
	return s.Sessions.Serve(stream)
}

// Operations are the single calls of a Service as a session performs them.
type Operations struct{ *Service }

// NewCall implements session.Operations.
func (o Operations) NewCall(ctx context.Context, p *authz.Principal, operation engine.Waker) session.Call {
	return &operationCall{service: o.Service, ctx: ctx, principal: p, operation: operation}
}

// operationCall is one call of a Service in steps that do not block. It has the same checks
// and conversions as the call itself.
type operationCall struct {
	service   *Service
	ctx       context.Context // of the stream: it says who calls
	principal *authz.Principal
	operation engine.Waker

	kind session.Kind

	request  *quota.Request // check_and_reserve
	attempt  engine.Attempt
	decision quota.Decision

	settle  *quota.Settle // commit, release
	settled bool
	receipt quota.Receipt
	err     error

	op     *purserv1.Operation // the rest, which block: what is asked
	answer purserv1.OperationResult
}

// Take implements session.Call.
func (c *operationCall) Take(op *purserv1.Operation) (err error) {
	decision := c.decision
	*c = operationCall{service: c.service, ctx: c.ctx, principal: c.principal, operation: c.operation, decision: decision}
	c.kind, _ = session.KindOf(op)
	switch c.kind {
	case session.CheckAndReserve:
		req := op.GetCheckAndReserve()
		account, err := accountOf(c.principal, req.GetAccount())
		if err != nil {
			return err
		}
		c.attempt.Waker = c.operation
		c.request, err = fromAPICheckAndReserve(account, req)
		return err
	case session.Commit:
		if interim(op.GetCommit()) { // it waits for nothing that a settlement waits for
			c.op = op
			return nil
		}
		c.settle, err = fromAPICommit(op.GetCommit())
	case session.Release:
		c.settle, err = fromAPIRelease(op.GetRelease())
	default:
		c.op = op
	}
	return err
}

// Step implements session.Call.
func (c *operationCall) Step(out *purserv1.OperationResult) (engine.Progress, error) {
	switch {
	case c.request != nil:
		return c.reserve(out)
	case c.settle != nil:
		return c.end(out)
	}
	if c.answer.GetResult() == nil {
		return engine.Reading, nil
	}
	out.Result = c.answer.GetResult()
	return engine.Done, nil
}

func (c *operationCall) reserve(out *purserv1.OperationResult) (engine.Progress, error) {
	d := &c.decision
	d.Token = nil // the last answer has it
	progress, err := c.service.Authority.Attempt(c.principal, c.request, &c.attempt, d)
	if err != nil || progress != engine.Done {
		return progress, err
	}
	if !d.Allowed {
		c.service.logDenial(c.ctx, c.principal.Name, c.request, d)
	}
	out.Result = &purserv1.OperationResult_CheckAndReserve{CheckAndReserve: toAPICheckAndReserve(c.request, d)}
	return engine.Done, nil
}

func (c *operationCall) end(out *purserv1.OperationResult) (engine.Progress, error) {
	switch {
	case !c.settled && c.kind == session.Commit:
		return c.service.Authority.BeginCommit(c.principal, c.settle, c)
	case !c.settled:
		return c.service.Authority.BeginRelease(c.principal, c.settle, c)
	case c.err != nil:
		return engine.Done, c.err
	case c.kind == session.Commit:
		out.Result = &purserv1.OperationResult_Commit{Commit: toAPICommit(&c.receipt)}
	default:
		out.Result = &purserv1.OperationResult_Release{Release: toAPIRelease(&c.receipt)}
	}
	return engine.Done, nil
}

// Settled implements engine.Settled.
func (c *operationCall) Settled(r quota.Receipt, err error) {
	c.settled, c.receipt, c.err = true, r, err
	c.operation.Wake()
}

// Read implements session.Call.
func (c *operationCall) Read(ctx context.Context) error {
	switch {
	case c.request != nil:
		return c.service.Authority.PrefetchAccount(ctx, c.request.Account)
	case c.settle != nil:
		return c.service.Authority.PrefetchToken(ctx, c.principal, c.settle.Token)
	}
	switch c.kind {
	case session.Commit:
		resp, err := c.service.Commit(ctx, c.op.GetCommit())
		c.answer.Result = &purserv1.OperationResult_Commit{Commit: resp}
		return err
	case session.Extend:
		resp, err := c.service.Extend(ctx, c.op.GetExtend())
		c.answer.Result = &purserv1.OperationResult_Extend{Extend: resp}
		return err
	case session.Check:
		resp, err := c.service.Check(ctx, c.op.GetCheck())
		c.answer.Result = &purserv1.OperationResult_Check{Check: resp}
		return err
	}
	resp, err := c.service.GetBalance(ctx, c.op.GetGetBalance())
	c.answer.Result = &purserv1.OperationResult_GetBalance{GetBalance: resp}
	return err
}
