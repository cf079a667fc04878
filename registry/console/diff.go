package console

import (
	"context"
	"fmt"
	"io"
	"strings"

	"deploytools/layers/manifest"
	"deploytools/registry"
)

// fileChange is a file that differs between two layers.
type fileChange struct {
	Schema    Schema   `json:"schema"`
	Component string   `json:"component"`
	Path      string   `json:"path"`
	Change    string   `json:"change"`         // added, removed or changed
	What      []string `json:"what,omitempty"` // of a change: type, mode, owner, size, content, target
	Old       *fileRow `json:"old,omitempty"`
	New       *fileRow `json:"new,omitempty"`
}

func fileChangeOf(component string, c manifest.Change) fileChange {
	out := fileChange{Component: component, Path: manifest.Escape(c.Path), Old: fileRowOf(c.Old), New: fileRowOf(c.New)}
	switch {
	case c.Old == nil:
		out.Change = "added"
	case c.New == nil:
		out.Change = "removed"
	default:
		out.Change = "changed"
		for _, f := range out.facts() {
			if f.old != f.new {
				out.What = append(out.What, f.name)
			}
		}
	}
	return out
}

type fact struct{ name, old, new string }

// facts are what can differ between the two sides of a change.
func (c fileChange) facts() []fact {
	a, b := c.Old, c.New
	return []fact{
		{"type", a.Type, b.Type}, {"mode", a.Mode, b.Mode}, {"owner", a.owner(), b.owner()},
		{"size", fmt.Sprint(a.Size), fmt.Sprint(b.Size)}, {"content", a.Digest.Short(), b.Digest.Short()}, {"target", a.Target, b.Target},
	}
}

func (c fileChange) Text(w io.Writer) error {
	line := c.Component + "   " + fmt.Sprintf("%-7s", c.Change) + "   " + c.Path
	if c.Change == "changed" {
		var what []string
		for _, f := range c.facts() {
			if f.old != f.new {
				what = append(what, f.name+" "+orNone(f.old)+" -> "+orNone(f.new))
			}
		}
		line += "   " + strings.Join(what, ", ")
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// orNone shows what one side does not have.
func orNone(s string) string {
	if s == "" || s == strings.Repeat("0", 12) {
		return "-"
	}
	return s
}

type diffOp struct{ diffconfOp }

// adopt leaves the words as they are: they name versions.
func (*diffOp) adopt(args []string) []string { return args }

func (d *diffOp) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	if flag == "" {
		return layerNames(ctx, s)
	}
	return d.diffconfOp.suggest(ctx, s, flag)
}

// pair is two layers of a component to compare.
type pair struct {
	component string
	old, new  registry.Side
}

func (d *diffOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	var pairs []pair
	var err error
	scope := s.Caller.Configs
	switch {
	case d.name != "" && len(args) == 0:
		scope = "" // the configuration is the caller's, and with it what it ever had
		pairs, err = d.revisions(ctx, s)
	case d.name == "" && len(args) == 2 && d.from == 0 && d.to == 0:
		pairs, err = versions(ctx, s, args)
	default:
		err = usage("give two versions, or -name of a configuration and its revisions")
	}
	if err != nil {
		return nil, err
	}
	return rows(func(yield func(Result, error) bool) {
		for _, p := range pairs {
			for c, err := range s.Registry.DiffFiles(ctx, scope, p.old, p.new) {
				var row Result
				if err == nil {
					row = fileChangeOf(p.component, c)
				}
				if !yield(row, err) || err != nil {
					return
				}
			}
		}
	}), nil
}

// versions returns the pair of the two versions that were named.
func versions(ctx context.Context, s *Session, args []string) ([]pair, error) {
	var p pair
	for i, side := range []*registry.Side{&p.old, &p.new} {
		ref, err := registry.ParseLayerRef(args[i])
		if err != nil {
			return nil, err
		}
		v, err := s.Registry.Version(ctx, ref)
		if err != nil {
			return nil, err
		}
		p.component = ref.Component
		*side = registry.Side{Name: ref.String(), Digest: v.Digest}
	}
	return []pair{p}, nil
}

// revisions returns the layers that differ between the two revisions.
func (d *diffOp) revisions(ctx context.Context, s *Session) ([]pair, error) {
	differ, err := d.compare(ctx, s)
	if err != nil {
		return nil, err
	}
	if differ.Reordered {
		fmt.Fprintln(s.Stderr, "note: the layers are in another order, so that other files may win")
	}
	var pairs []pair
	for _, l := range differ.Layers {
		pairs = append(pairs, pair{
			l.Component, registry.Side{Name: l.Component + ":" + l.From, Digest: l.FromDigest}, registry.Side{Name: l.Component + ":" + l.To, Digest: l.ToDigest},
		})
	}
	return pairs, nil
}
