package console

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"deploytools/layers/digest"
	"deploytools/registry"
)

// configName completes the flag -name of commands about configurations.
type configName struct{ name string }

func (c *configName) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.name, "name", "", "`name` of the configuration")
}

func (c *configName) configuration() string { return c.name }

func (c *configName) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	switch flag {
	case "name":
		return configNames(ctx, s)
	case "component":
		rev, err := s.Registry.Configuration(ctx, c.name)
		if err != nil {
			return s.Registry.Components(ctx)
		}
		var out []string
		for _, l := range rev.Layers {
			out = append(out, l.Name)
		}
		return out, nil
	case "layer":
		return layerNames(ctx, s)
	case "from", "to":
		revs, err := s.Registry.History(ctx, c.name)
		var out []string
		for _, rev := range revs {
			out = append(out, strconv.FormatUint(rev.Revision, 10))
		}
		return out, err
	}
	return nil, nil
}

// configNames returns the names of the caller's configurations.
func configNames(ctx context.Context, s *Session) ([]string, error) {
	revs, err := s.Registry.Configurations(ctx)
	var out []string
	for _, rev := range revs {
		if s.Caller.Configs.Holds(rev.Name) {
			out = append(out, rev.Name)
		}
	}
	return out, err
}

// layerNames returns every COMPONENT:VERSION.
func layerNames(ctx context.Context, s *Session) ([]string, error) {
	components, err := s.Registry.Components(ctx)
	var out []string
	for _, name := range components {
		versions, err := s.Registry.Versions(ctx, name)
		if err != nil {
			continue // deleted meanwhile
		}
		for _, v := range versions {
			out = append(out, name+":"+v.Version)
		}
	}
	return out, err
}

func parseLayers(words []string) ([]registry.LayerRef, error) {
	var out []registry.LayerRef
	for _, w := range words {
		l, err := registry.ParseLayerRef(w)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

type configurationsOp struct{}

func (*configurationsOp) Flags(*pflag.FlagSet) {}

func (*configurationsOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	revs, err := s.Registry.Configurations(ctx)
	var names []string
	held := map[string]heldRow{}
	for _, rev := range revs {
		if !s.Caller.Configs.Holds(rev.Name) {
			continue
		}
		names = append(names, rev.Name)
		if rev.Hold != nil {
			held[rev.Name] = heldRow{rev.Hold.Reason, rev.Hold.Until}
			if !s.json {
				s.noteHold(rev.Name, rev.Hold)
			}
		}
	}
	return configurationList{newNameList(names), held}, err
}

// configurationList is a list of names, and the holds of those that are held.
type configurationList struct {
	nameList
	Held map[string]heldRow `json:"held,omitempty"`
}

type showconfOp struct {
	configArg
	verbose, digests bool
}

func (c *showconfOp) Flags(fs *pflag.FlagSet) {
	c.configArg.Flags(fs)
	fs.BoolVar(&c.digests, "digests", false, "show the digest of each layer beside its version")
	fs.BoolVarP(&c.verbose, "verbose", "v", false, "show when it was changed, and its hash")
}

type configuration struct {
	Schema   Schema        `json:"schema"`
	Name     string        `json:"name"`
	Revision uint64        `json:"revision"`
	Changed  time.Time     `json:"changed"`
	By       string        `json:"by"`
	Hash     digest.Digest `json:"hash"`
	Digest   digest.Digest `json:"digest"`
	Layers   []layerRow    `json:"layers"`
	Note     string        `json:"note,omitempty"`
	Held     *heldRow      `json:"held,omitempty"`
	Verify   *verifyRow    `json:"verify,omitempty"`

	verbose, digests bool
}

type layerRow struct {
	Component string        `json:"component"`
	Version   string        `json:"version"`
	Added     time.Time     `json:"added"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
}

func configurationOf(rev *registry.Revision) configuration {
	c := configuration{Name: rev.Name, Revision: rev.Revision, Changed: rev.Mtime, By: Clean(rev.By), Hash: rev.Hash, Digest: rev.Digest, Note: rev.Note, Verify: verifyOf(rev.Verify)}
	if rev.Hold != nil {
		c.Held = &heldRow{rev.Hold.Reason, rev.Hold.Until}
	}
	for _, l := range rev.Layers {
		c.Layers = append(c.Layers, layerRow{l.Name, l.Version, l.Ctime, l.Hash, l.Size})
	}
	return c
}

func (c configuration) Text(w io.Writer) error {
	if c.verbose {
		fmt.Fprintf(w, "Name:\t%s\nMtime:\t%s\nHash:\t%s\n", c.Name, timeText(c.Changed), c.Hash)
		if c.Note != "" {
			fmt.Fprintf(w, "Note:\t%s\n", c.Note)
		}
		if c.Held != nil {
			fmt.Fprintf(w, "Held:\t%s\n", c.Held)
		}
		if c.Verify != nil {
			c.Verify.text(w)
		}
		fmt.Fprintln(w)
	}
	t := table(w)
	for _, l := range c.Layers {
		fmt.Fprintf(t, "%s\t%s\t%s\t", l.Component, l.Version, timeText(l.Added))
		if c.digests {
			fmt.Fprintf(t, "%s\t", l.Digest)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

func (c *showconfOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if err := c.take(s, args); err != nil {
		return nil, err
	}
	rev, err := s.Registry.Configuration(ctx, c.name)
	if err != nil {
		return nil, err
	}
	out := configurationOf(rev)
	out.verbose, out.digests = c.verbose, c.digests
	if !c.verbose && !s.json { // which show it
		s.noteHold(c.name, rev.Hold)
	}
	return out, nil
}

// changed says what a command did to a configuration and how to take it back.
type changed struct {
	Schema   Schema `json:"schema"`
	Name     string `json:"name"`
	Revision uint64 `json:"revision"`
	Changed  bool   `json:"changed"`
	What     string `json:"what,omitempty"`
	Rollback string `json:"rollback,omitempty"` // a command
	DryRun   bool   `json:"dry_run,omitempty"`
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
func (e *expecting) changed(s *Session, c registry.Change, err error) (Result, error) {
	if err != nil {
		return nil, err
	}
	s.noteHold(c.Name, c.Hold)
	out := changed{Name: c.Name, Revision: c.New.Revision, Changed: c.Changed(), DryRun: e.dryRun, plan: c.What}
	if out.Changed {
		out.What = c.New.What
		out.Rollback = wayBack(c)
		s.noteHostOnly(c.New.Verify)
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
	configName
	expecting
	checkFlags
	layers  []string
	replace bool
}

func (a *addconfOp) Flags(fs *pflag.FlagSet) {
	a.configName.Flags(fs)
	fs.StringArrayVar(&a.layers, "layer", nil, "layer, as `component:version`; repeat it for each one, from bottom to top")
	fs.BoolVar(&a.replace, "replace", false, "replace all layers of a configuration that exists, which keeps its checks unless others are given")
	a.flags(fs)
	a.expecting.Flags(fs)
}

func (a *addconfOp) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	if flag == "" {
		flag = "layer"
	}
	return a.configName.suggest(ctx, s, flag)
}

func (a *addconfOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if a.name == "" && len(args) > 0 {
		a.name, args = args[0], args[1:]
	}
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
	return a.changed(s, change, err)
}

type changeconfOp struct {
	configName
	expecting
	checkFlags
	component, version string
	layers             []string
}

func (c *changeconfOp) Flags(fs *pflag.FlagSet) {
	c.configName.Flags(fs)
	fs.StringVar(&c.component, "component", "", "`name` of the component whose layer changes")
	fs.StringVar(&c.version, "version", "", "`version` that the layer is to have")
	fs.StringArrayVar(&c.layers, "layer", nil, "layer to have, as `component:version`; may be repeated")
	c.flags(fs)
	c.expecting.Flags(fs)
}

func (c *changeconfOp) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	if flag == "version" {
		return (&componentName{c.component}).suggest(ctx, s, flag)
	}
	return c.configName.suggest(ctx, s, flag)
}

func (c *changeconfOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	if err := given(c.name); err != nil {
		return nil, err
	}
	if (c.component == "") != (c.version == "") {
		return nil, usage("-component and -version go together")
	}
	refs, err := parseLayers(c.layers)
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
	return c.changed(s, change, err)
}

type bumpconfOp struct {
	configName
	expecting
	components []string
}

func (b *bumpconfOp) Flags(fs *pflag.FlagSet) {
	b.configName.Flags(fs)
	fs.StringArrayVar(&b.components, "component", nil, "`name` of the component whose layer changes; may be repeated")
	b.expecting.Flags(fs)
}

func (b *bumpconfOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	if err := given(b.name); err != nil {
		return nil, err
	}
	change, err := s.Registry.BumpConfiguration(ctx, b.act(s), b.name, b.components)
	return b.changed(s, change, err)
}

type rollbackOp struct {
	configName
	expecting
	to uint64
}

func (r *rollbackOp) Flags(fs *pflag.FlagSet) {
	r.configName.Flags(fs)
	fs.Uint64Var(&r.to, "to", 0, "`revision` whose layers to take; 0 is the one before the newest")
	r.expecting.Flags(fs)
}

func (r *rollbackOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	if err := given(r.name); err != nil {
		return nil, err
	}
	change, err := s.Registry.Rollback(ctx, r.act(s), r.name, r.to)
	return r.changed(s, change, err)
}

type delconfOp struct {
	configName
	expecting
	force bool
}

func (d *delconfOp) Flags(fs *pflag.FlagSet) {
	d.configName.Flags(fs)
	fs.BoolVar(&d.force, "force", false, "yes, delete it")
	d.expecting.Flags(fs)
}

func (d *delconfOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	if err := given(d.name); err != nil {
		return nil, err
	}
	if !d.force && !d.dryRun {
		return nil, usage(noForce)
	}
	return d.told(s.Registry.DeleteConfiguration(ctx, d.act(s), d.name))
}
