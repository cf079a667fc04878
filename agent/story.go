package agent

import "cmp"

// What an operator reads first: one line when an agent starts, and one when a
// deployment has ended.

// logStart says what the agent found.
func (a *Agent) logStart() {
	a.log().Info("agent started", append([]any{"dir", a.o.Dir, "state", a.rec.State}, serving(a.rec.Live)...)...)
}

// serving is what a line says of the committed root; nil: there is none.
func serving(r *Root) []any {
	if r == nil {
		return []any{"root", "none"}
	}
	return []any{"revision", r.Configuration.Revision, "root", r.Dir, "verification", r.Verification}
}

// logEnd says how the deployment d ended, once that is on record. What is not
// verified is never told as if it were.
func (a *Agent) logEnd(d *Deployment) {
	keys := []any{"revision", d.New.Configuration.Revision}
	root := "none" // that serves again
	if back := d.target(); back != nil {
		root = back.Dir
	}
	switch d.Verdict {
	case "":
		a.log().Info("configuration deployed", append(keys, "root", d.New.Dir, "verification", cmp.Or(d.New.Verification, Unverified))...)
	case DryRun:
		a.log().Info("dry run done", keys...)
	case Bad:
		a.log().Error("configuration "+string(d.Outcome()), append(keys, "root", root, "error", d.whyBad())...)
	default:
		a.log().Info("configuration "+string(d.Verdict), append(keys, "root", root, "error", d.Reason)...)
	}
}
