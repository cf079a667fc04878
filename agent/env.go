package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"deploytools/atomic"
)

// passed are the variables that programs get from the agent's own environment.
var passed = []string{"PATH", "HOME", "TMPDIR", "USER", "LOGNAME", "LANG", "LC_ALL", "SHELL"}

// personal are those of them that say who one is.
var personal = []string{"HOME", "USER", "LOGNAME", "SHELL"}

// runHook runs one of the host's programs. kind says which and for what: check,
// deploy, rollback, remove, leave; label names its files in the evidence.
func (a *Agent) runHook(ctx context.Context, d *Deployment, kind, label string) (hookResult, error) {
	dir := a.evidence(d)
	if err := atomic.MkdirAll(dir, 0o711); err != nil {
		return hookResult{}, err
	}
	v := a.view(d, kind)
	v.stateFile = filepath.Join(dir, label+".state.json")
	state, err := v.layers.Configuration.Encode()
	if err != nil {
		return hookResult{}, err
	}
	if err := atomic.WriteFile(v.stateFile, state, 0o644); err != nil {
		return hookResult{}, err
	}
	c := hookCall{Dir: dir, Label: label, Path: v.program, Env: a.environment(d, v), WorkDir: a.workDir, Timeout: a.o.Hook.Timeout,
		Guard: a.guardOf(d, kind), began: a.began}
	// The supervisor holds the deadline. This one is for the case that it is
	// stopped: three attempts, each with its grace time.
	ctx, cancel := context.WithTimeout(ctx, hookRuns*(a.o.Hook.Timeout+hookGrace+hookPatience))
	defer cancel()
	var result hookResult
	err = a.during(ctx, "", func(ctx context.Context) (err error) {
		result, err = a.hooks.run(ctx, c, func(text string) {
			a.log().Info("hook output", "command", label, "output", text)
		})
		return err
	})
	if err == nil {
		a.log().Info("hook run", "command", label, "status", result.Exit, "attempt", result.Attempt,
			"duration_ms", result.Ended.Sub(result.Started).Milliseconds())
	}
	return result, err
}

// awaitQuiet returns when no program of the deployment runs: the way back, and what
// follows it, is not to run beside a hook that an agent has left. It has as long as runHook.
func (a *Agent) awaitQuiet(ctx context.Context, d *Deployment) error {
	ctx, cancel := context.WithTimeout(ctx, hookRuns*(a.o.Hook.Timeout+hookGrace+hookPatience))
	defer cancel()
	return a.during(ctx, "", func(ctx context.Context) error { return a.hooks.quiet(ctx, a.evidence(d)) })
}

// view is what one run of a program is told.
type view struct {
	program       string
	phase, action string
	reason        string
	old, new      *Root // OLDROOT and NEWROOT; nil: empty
	layers        *Root // whose layers and state file it sees
	stateFile     string
}

// view says who is OLDROOT and who is NEWROOT. On the way back the roots are
// exchanged, so that a script that knows nothing of rollbacks does one.
func (a *Agent) view(d *Deployment, kind string) view {
	v := view{program: a.o.Hook.Script, phase: "deploy", action: "deploy", old: d.From, new: &d.New, layers: &d.New,
		reason: fmt.Sprintf("revision %d", d.New.Configuration.Revision)}
	if d.ByHand {
		v.action, v.reason = "rollback", "by hand"
	}
	switch kind {
	case "check":
		v.program, v.phase = a.o.Hook.CheckScript, "check"
	case "rollback":
		v.action, v.reason = "rollback", d.Reason // also where a person's rollback failed
		v.old, v.new, v.layers = &d.New, d.Back, d.Back
	case "leave":
		v.program, v.phase, v.action, v.reason = a.o.Hook.RemoveScript, "remove", "remove", d.Reason
		v.old, v.new = &d.New, nil
	case "remove":
		v.program, v.phase, v.action, v.reason = a.o.Hook.RemoveScript, "remove", "rollback", d.Reason
		v.old, v.new = &d.New, nil
	}
	return v
}

// passedOn are the variables of the agent's own environment that programs get,
// with those of the user that they run as; nil: the agent's own.
func passedOn(as *User) []string {
	var env []string
	for _, name := range passed {
		if value, ok := os.LookupEnv(name); ok && (as == nil || !slices.Contains(personal, name)) {
			env = append(env, name+"="+value)
		}
	}
	if as != nil {
		env = append(env, as.variables()...)
	}
	return env
}

// environment is the whole of it, but DEPLOY_ATTEMPT. All paths are absolute.
func (a *Agent) environment(d *Deployment, v view) []string {
	env := passedOn(a.o.Hook.User)
	set := func(name, value string) { env = append(env, name+"="+value) }
	root := func(prefix string, r *Root) {
		if r == nil {
			set(prefix+"ID", "")
			set(prefix+"ROOT", "")
			return
		}
		set(prefix+"ID", r.Configuration.Hash.String())
		set(prefix+"ROOT", a.path(r.Dir))
	}
	root("OLD", v.old)
	root("NEW", v.new)
	set("STATEFILE", v.stateFile)
	all := v.layers.Configuration.Layers
	set("LAYER_COUNT", strconv.Itoa(len(all)))
	for i, l := range all {
		prefix := fmt.Sprintf("LAYER_%d_", i)
		set(prefix+"NAME", l.Name)
		set(prefix+"VERSION", l.Version)
		set(prefix+"HASH", l.Hash.String())
	}
	set("DEPLOY_NAME", a.o.Name)
	set("DEPLOY_REVISION", strconv.FormatUint(v.layers.Configuration.Revision, 10))
	set("DEPLOY_ID", d.ID)
	set("DEPLOY_PHASE", v.phase)
	set("DEPLOY_ACTION", v.action)
	set("DEPLOY_CURRENT", a.path("current"))
	set("DEPLOY_REASON", v.reason)
	if v.phase == "check" {
		set("DEPLOY_STAGED", a.staged)
	}
	return env
}
