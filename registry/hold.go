package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"deploytools/registry/wire"
)

// Hold keeps the agents of a configuration from starting anything new.
type Hold struct {
	Reason string
	Since  time.Time
	Until  time.Time `json:",omitzero"` // it ends by itself then; zero: when a person resumes
	By     string
}

// over reports whether the hold has ended by itself.
func (h Hold) over(now time.Time) bool { return !h.Until.IsZero() && !h.Until.After(now) }

// holdOf returns the hold of a configuration that is in force, or nil.
func (r *Registry) holdOf(tx Tx, name string) (*Hold, error) {
	h, ok, err := get[Hold](tx, keyHold(name))
	if err != nil || !ok || h.over(r.now()) {
		return nil, err
	}
	return &h, nil
}

// wireHold is holdOf as agents are told it.
func (r *Registry) wireHold(tx Tx, name string) (*wire.Hold, error) {
	h, err := r.holdOf(tx, name)
	if h == nil {
		return nil, err
	}
	return &wire.Hold{Reason: h.Reason, Until: h.Until}, nil
}

// Hold stops the deliveries of a configuration until that time, or until EndHold
// when until is zero. What agents have begun goes on. A hold that is there is
// replaced. It returns the change in words.
func (r *Registry) Hold(ctx context.Context, a Act, name, reason string, until time.Time) (string, error) {
	if err := a.Caller.CheckScope(name); err != nil {
		return "", err
	}
	switch {
	case len(reason) > wire.MaxReason:
		return "", fail(ErrUsage, "reason is longer than %d bytes", wire.MaxReason)
	case reason == "":
		return "", fail(ErrUsage, "a hold should have a reason").hint("give -reason TEXT: agents show it")
	}
	if err := checkText("reason", reason); err != nil {
		return "", err
	}
	return r.act(ctx, a, func(tx Tx) (done, error) {
		rev, err := configOf(tx, name)
		if err == nil {
			err = a.expects(name, rev.Revision)
		}
		if err != nil {
			return done{}, err
		}
		h := Hold{Reason: reason, Since: r.now(), Until: until.UTC(), By: a.Caller.String()}
		if h.over(h.Since) {
			return done{}, fail(ErrUsage, "the hold would have ended at %s already", until.UTC().Format(time.RFC3339))
		}
		what := "held: " + reason
		if !until.IsZero() {
			what += ", until " + h.Until.Format(time.RFC3339)
		}
		return done{name: name, what: what}, put(tx, keyHold(name), h)
	})
}

// EndHold ends the hold of a configuration. Without one it does nothing. It
// returns the change in words.
func (r *Registry) EndHold(ctx context.Context, a Act, name string) (string, error) {
	if err := a.Caller.CheckScope(name); err != nil {
		return "", err
	}
	return r.act(ctx, a, func(tx Tx) (done, error) {
		h, err := r.holdOf(tx, name)
		if err != nil {
			return done{}, err
		}
		rev, err := configOf(tx, name)
		switch {
		case err == nil:
			err = a.expects(name, rev.Revision)
		case h != nil && errors.Is(err, ErrNotFound):
			err = nil // what was deleted may be held still
		}
		if err != nil {
			return done{}, err
		}
		if h == nil {
			return done{name: name, what: "was not held", nothing: true}, nil
		}
		return done{name: name, what: fmt.Sprintf("resumed, was held: %s", h.Reason)}, tx.Delete(keyHold(name))
	})
}
