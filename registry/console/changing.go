package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/spf13/pflag"

	"deploytools/registry"
)

// changed says what a command did to a configuration and how to take it back.
type changed struct {
	Schema   Schema      `json:"schema"`
	Name     string      `json:"name"`
	Revision uint64      `json:"revision"`
	Changed  bool        `json:"changed"`
	What     string      `json:"what,omitempty"`
	Rollback string      `json:"rollback,omitempty"`           // a command
	FailedOn []failedRow `json:"failed_on,omitempty"`          // hosts where it failed before
	Replaces []failedRow `json:"replaces_failed_on,omitempty"` // hosts where the revision before it failed, and which do not run this one
	DryRun   bool        `json:"dry_run,omitempty"`
	plan     string
}

// Text keeps the shape of the original tool set.
func (c changed) Text(w io.Writer) error {
	switch {
	case c.DryRun:
		return plan{What: c.plan}.Text(w)
	case c.Rollback == "":
		return nil
	}
	_, err := fmt.Fprintf(w, "to roll back run:\n\t%s\n", c.Rollback)
	return err
}

// changed returns what a command prints that gives a configuration other layers.
func (e *expecting) changed(ctx context.Context, s *Session, c registry.Change, err error) (Result, error) {
	if err != nil {
		return nil, err
	}
	s.noteHold(c.Name, c.Hold)
	out := changed{Name: c.Name, Revision: c.New.Revision, Changed: c.Changed(), DryRun: e.dryRun, plan: c.What}
	if out.Changed {
		out.What = c.New.What
		out.Rollback = wayBack(c)
		s.noteHostOnly(c.New.Verify)
		out.FailedOn, out.Replaces = s.failedOn(ctx, c)
	}
	return out, nil
}

// wayBack returns the command that restores the old layers: by their names
// where only versions changed, as the original tool set printed it, else by the
// revision.
func wayBack(c registry.Change) string {
	if c.Old == nil {
		return ""
	}
	differ := len(c.Old.Layers) != len(c.New.Layers) || !slices.Equal(allLines(c.Old.Verify), allLines(c.New.Verify))
	var back []registry.LayerRef
	for i := 0; i < len(c.Old.Layers) && !differ; i++ {
		was, is := c.Old.Layers[i], c.New.Layers[i]
		if was.Name != is.Name || was.Version == is.Version && was.Hash != is.Hash {
			differ = true
		} else if was.Version != is.Version {
			back = append(back, registry.LayerRef{Component: was.Name, Version: was.Version})
		}
	}
	switch {
	case differ:
		return fmt.Sprintf("rollback -name=%q -to=%d", c.Name, c.Old.Revision)
	case len(back) == 1:
		return fmt.Sprintf("changeconf -name=%q -component=%q -version=%q", c.Name, back[0].Component, back[0].Version)
	}
	line := fmt.Sprintf("changeconf -name=%q", c.Name)
	for _, l := range back {
		line += fmt.Sprintf(" -layer=%q", l)
	}
	return line
}

type addconfOp struct {
	configArg
	expecting
	checkFlags
	layers  []string
	replace bool
}

func (a *addconfOp) Flags(fs *pflag.FlagSet) {
	a.configArg.Flags(fs)
	fs.StringArrayVar(&a.layers, "layer", nil, "layer, as `component:version`; repeat it for each one, from bottom to top")
	fs.BoolVar(&a.replace, "replace", false, "replace all layers of a configuration that exists, which keeps its checks unless others are given")
	a.flags(fs)
	a.expecting.Flags(fs)
}

func (a *addconfOp) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	if flag == "" {
		flag = "layer"
	}
	return a.configArg.suggest(ctx, s, flag)
}

func (a *addconfOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	a.layers = append(a.layers, args...)
	if err := given(a.name); err != nil {
		return nil, err
	}
	refs, err := parseLayers(a.layers)
	if err != nil {
		return nil, err
	}
	checks, err := a.asked()
	if err != nil {
		return nil, err
	}
	change, err := s.Registry.AddConfiguration(ctx, a.act(s), a.name, refs, checks, a.replace)
	return a.changed(ctx, s, change, err)
}

type changeconfOp struct {
	configArg
	expecting
	checkFlags
	component, version string
	layers             []string
}

func (c *changeconfOp) Flags(fs *pflag.FlagSet) {
	c.configArg.Flags(fs)
	fs.StringVar(&c.component, "component", "", "`name` of the component whose layer changes")
	fs.StringVar(&c.version, "version", "", "`version` that the layer is to have")
	fs.StringArrayVar(&c.layers, "layer", nil, "layer to have, as `component:version`; may be repeated")
	c.flags(fs)
	c.expecting.Flags(fs)
}

func (c *changeconfOp) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	switch {
	case flag == "version":
		return (&componentName{c.component}).suggest(ctx, s, flag)
	case flag == "" && c.name != "":
		flag = "layer"
	}
	return c.configArg.suggest(ctx, s, flag)
}

func (c *changeconfOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if err := given(c.name); err != nil {
		return nil, err
	}
	if (c.component == "") != (c.version == "") {
		return nil, usage("-component and -version go together")
	}
	refs, err := parseLayers(append(c.layers, args...))
	if err != nil {
		return nil, err
	}
	if c.component != "" {
		refs = append(refs, registry.LayerRef{Component: c.component, Version: c.version})
	}
	checks, err := c.asked()
	if err != nil {
		return nil, err
	}
	change, err := s.Registry.ChangeConfiguration(ctx, c.act(s), c.name, refs, checks)
	return c.changed(ctx, s, change, err)
}

type bumpconfOp struct {
	configArg
	expecting
	components []string
}

func (b *bumpconfOp) Flags(fs *pflag.FlagSet) {
	b.configArg.Flags(fs)
	fs.StringArrayVar(&b.components, "component", nil, "`name` of the component whose layer changes; may be repeated")
	b.expecting.Flags(fs)
}

func (b *bumpconfOp) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	if flag == "" && b.name != "" {
		flag = "component"
	}
	return b.configArg.suggest(ctx, s, flag)
}

func (b *bumpconfOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if err := given(b.name); err != nil {
		return nil, err
	}
	change, err := s.Registry.BumpConfiguration(ctx, b.act(s), b.name, append(b.components, args...))
	return b.changed(ctx, s, change, err)
}

type rollbackOp struct {
	configArg
	expecting
	to uint64
}

func (r *rollbackOp) Flags(fs *pflag.FlagSet) {
	r.configArg.Flags(fs)
	fs.Uint64Var(&r.to, "to", 0, "`revision` whose layers to take; 0 is the one before the newest")
	r.expecting.Flags(fs)
}

func (r *rollbackOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if err := r.alone(args); err != nil {
		if e, ok := errors.AsType[*registry.Error](err); ok && len(args) > 0 && r.to == 0 {
			if _, err := strconv.ParseUint(args[0], 10, 64); err == nil {
				e.Hint = "if it is a revision: -to " + args[0]
			}
		}
		return nil, err
	}
	change, err := s.Registry.Rollback(ctx, r.act(s), r.name, r.to)
	return r.changed(ctx, s, change, err)
}

type delconfOp struct {
	configArg
	expecting
	force bool
}

func (d *delconfOp) Flags(fs *pflag.FlagSet) {
	d.configArg.Flags(fs)
	fs.BoolVar(&d.force, "force", false, "yes, delete it")
	d.expecting.Flags(fs)
}

func (d *delconfOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if err := d.alone(args); err != nil {
		return nil, err
	}
	if !d.force && !d.dryRun {
		return nil, usage(noForce)
	}
	return d.told(s.Registry.DeleteConfiguration(ctx, d.act(s), d.name))
}
