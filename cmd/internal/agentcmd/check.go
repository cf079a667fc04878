package agentcmd

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
	"deploytools/registry/wire"
)

// checkOp is the verb check.
type checkOp struct {
	place
	what agent.Inspection
}

func (v *checkOp) Flags(fs *pflag.FlagSet) {
	v.place.flags(fs)
	fs.BoolVar(&v.what.All, "all", false, "look at every root, the cached layers and the records")
	fs.BoolVar(&v.what.Quick, "quick", false, "read no files that have not changed since they were unpacked, as far as the file system tells")
	fs.BoolVar(&v.what.Idle, "idle", false, "give way to whoever else needs the processor or the disk")
}

func (v *checkOp) Run(ctx context.Context, o *cli.IO, _ []string) error {
	if err := v.find(); err != nil {
		return err
	}
	a, err := agent.Look(v.viewing())
	if errors.Is(err, agent.ErrNothing) || errors.Is(err, fs.ErrPermission) {
		return v.lost(err)
	}
	v.what.Owner = v.at.layers.Owner
	found, inspectErr := agent.Inspect(ctx, v.at.dir, v.what)
	if inspectErr != nil {
		return v.lost(inspectErr)
	}
	result := checkResult{Name: v.at.name, Whole: found.Whole(), Integrity: found}
	if err == nil { // else it is among what was found
		result.Name = a.Record().Name
	}
	if err := v.show(o, result); err != nil {
		return err
	}
	if !result.Whole {
		return &cli.Error{Status: wire.Failed, Hint: mends(found, v.call)}
	}
	return nil
}

// mends says what to do about what was found: a repair is for what is live alone.
func mends(found *agent.Integrity, call func(verb string) string) string {
	var live, older, cached, record, published bool
	root := ""
	for _, c := range found.Roots {
		if c.Live {
			root, live = c.Root, !c.Whole()
		} else {
			older = older || !c.Whole()
		}
	}
	for _, d := range found.Damaged {
		switch dir := filepath.Dir(d.Name); {
		case dir == "cache":
			cached = true
		case d.Name == "current" || root != "" && strings.HasPrefix(d.Name, root+"."):
			live = true
		case dir == "roots":
			older = true
		default:
			record = true
		}
	}
	for _, p := range found.Files {
		published = published || p.Differs != ""
	}
	var do []string
	for _, row := range []struct {
		found bool
		text  string
	}{
		{live, call("repair") + " deploys what is live again"},
		{published, "leave a published file, or " + call("repair") + " puts back what was published, and keeps the other version"},
		{older, "nothing has to be done about an older root: " + call("rollback") + " passes over it where a whole one is kept, and it is collected in its time"},
		{cached, "a cached layer is fetched again when it is needed, and may be deleted"},
		{record, "the agent makes a damaged record anew when it is started again"},
	} {
		if row.found {
			do = append(do, row.text)
		}
	}
	return strings.Join(do, "; ")
}
