package console

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"deploytools/layers/digest"
	"deploytools/registry"
)

// timeText is how listings show a time: as the original tool set did.
func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// table aligns cells that end in a tab, with three spaces between them, also
// behind the last: as the original tool set did.
func table(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 8, 3, ' ', 0) }

// ownTable is table for what the original tool set did not show: nothing stands
// behind the last cell of a line.
func ownTable(w io.Writer) *tabwriter.Writer { return table(&trimmed{w: w}) }

// trimmed writes without the blanks at the ends of lines.
type trimmed struct {
	w      io.Writer
	blanks int // that came and were not written yet
}

func (t *trimmed) Write(p []byte) (int, error) {
	var out []byte
	for _, c := range p {
		switch c {
		case ' ':
			t.blanks++
			continue
		case '\n':
			t.blanks = 0
		}
		for ; t.blanks > 0; t.blanks-- {
			out = append(out, ' ')
		}
		out = append(out, c)
	}
	if _, err := t.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// nameList is a list of names, one a line.
type nameList struct {
	Schema Schema   `json:"schema"`
	Names  []string `json:"names"`
}

func newNameList(names []string) nameList {
	if names == nil {
		names = []string{}
	}
	return nameList{Names: names}
}

func (l nameList) Text(w io.Writer) error {
	for _, name := range l.Names {
		if _, err := fmt.Fprintln(w, name); err != nil {
			return err
		}
	}
	return nil
}

// componentName completes the flag -name of commands about components.
type componentName struct{ name string }

func (c *componentName) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.name, "name", "", "`name` of the component")
}

func (c *componentName) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	switch flag {
	case "name":
		return s.Registry.Components(ctx)
	case "version":
		versions, err := s.Registry.Versions(ctx, c.name)
		var out []string
		for _, v := range versions {
			out = append(out, v.Version)
		}
		return out, err
	}
	return nil, nil
}

// given fails unless the name is set.
func given(name string) error {
	if name == "" {
		return usage("-name should be set")
	}
	return nil
}

type componentsOp struct{}

func (*componentsOp) Flags(*pflag.FlagSet) {}

func (*componentsOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	names, err := s.Registry.Components(ctx)
	return newNameList(names), err
}

// componentArg is a componentName that may also be the first word behind the
// flags.
type componentArg struct{ componentName }

func (c *componentArg) adopt(args []string) []string { return adoptName(&c.name, args) }

func (c *componentArg) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	if flag == "" && c.name == "" {
		flag = "name"
	}
	return c.componentName.suggest(ctx, s, flag)
}

type showcompOp struct {
	componentArg
	verbose bool
}

func (c *showcompOp) Flags(fs *pflag.FlagSet) {
	c.componentArg.Flags(fs)
	fs.BoolVarP(&c.verbose, "verbose", "v", false, "show digests, who added them, notes and meta too")
}

type versionList struct {
	Schema    Schema       `json:"schema"`
	Component string       `json:"component"`
	Versions  []versionRow `json:"versions"`
	verbose   bool
}

type versionRow struct {
	Version  string        `json:"version"`
	Added    time.Time     `json:"added"`
	By       string        `json:"by"`
	Digest   digest.Digest `json:"digest"`
	Size     int64         `json:"size"`
	Unpacked int64         `json:"unpacked"`
	Entries  int64         `json:"entries"`

	Note string            `json:"note,omitempty"`
	Meta map[string]string `json:"meta,omitempty"`
}

func (l versionList) Text(w io.Writer) error {
	t := table(w)
	if l.verbose {
		t = ownTable(w)
	}
	for _, v := range l.Versions {
		fmt.Fprintf(t, "%s\t%s\t", timeText(v.Added), v.Version)
		if l.verbose {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t", v.Digest, v.By, v.metaText(), v.Note)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// metaText returns the meta in one cell, sorted.
func (v versionRow) metaText() string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(v.Meta)) {
		out = append(out, key+"="+v.Meta[key])
	}
	return strings.Join(out, " ")
}

func (c *showcompOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if err := alone(c.name, args); err != nil {
		return nil, err
	}
	versions, err := s.Registry.Versions(ctx, c.name)
	out := versionList{Component: c.name, verbose: c.verbose}
	for _, v := range versions {
		out.Versions = append(out.Versions, versionRow{
			Version: v.Version, Added: v.Added, By: Clean(v.By), Digest: v.Digest, Size: v.Size, Unpacked: v.Unpacked,
			Entries: v.Entries, Note: v.Note, Meta: v.Meta,
		})
	}
	return out, err
}

type addverOp struct {
	componentName
	acting
	version, hash string
	meta          []string
	mustBeNew     bool
}

func (a *addverOp) Flags(fs *pflag.FlagSet) {
	a.componentName.Flags(fs)
	fs.StringVar(&a.version, "version", "", "`name` of the new version")
	fs.StringVar(&a.hash, "hash", "", "`digest` of the content: SHA-256, 64 hexadecimal digits")
	fs.StringArrayVar(&a.meta, "meta", nil, "`key=value` to keep with the version, such as commit=1f3a9c7; may be repeated")
	fs.BoolVar(&a.mustBeNew, "must-be-new", false, "fail if the version exists with the same content")
	a.acting.Flags(fs)
}

func (a *addverOp) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	if flag != "hash" {
		return a.componentName.suggest(ctx, s, flag)
	}
	uploads, err := s.Registry.Uploads(ctx)
	var out []string
	for _, u := range uploads {
		if u.Complete {
			out = append(out, u.Digest.String())
		}
	}
	return out, err
}

type added struct {
	Schema   Schema        `json:"schema"`
	Name     string        `json:"name"`
	Version  string        `json:"version"`
	Digest   digest.Digest `json:"digest"`
	Existed  bool          `json:"existed"`
	DryRun   bool          `json:"dry_run,omitempty"`
	What     string        `json:"what,omitempty"`
	Warnings []string      `json:"warnings,omitempty"`
	Removed  []string      `json:"removed,omitempty"` // older versions
}

// Text prints nothing: a version that was added is no news. What is news goes
// to Stderr.
func (a added) Text(w io.Writer) error {
	if a.DryRun {
		return plan{What: a.What}.Text(w)
	}
	return nil
}

// parseMeta reads words of the form key=value.
func parseMeta(words []string) (map[string]string, error) {
	var out map[string]string
	for _, word := range words {
		key, value, ok := strings.Cut(word, "=")
		if _, twice := out[key]; !ok || twice {
			return nil, usage("-meta %q: should be key=value, each key once", word)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[key] = value
	}
	return out, nil
}

// checkProgress tells w how far a check is, and once each time that it waits.
func checkProgress(w io.Writer) func(registry.CheckProgress) {
	waiting := false
	return func(p registry.CheckProgress) {
		switch {
		case !p.Waiting:
			fmt.Fprintf(w, "checking the archive: %d of %d bytes\n", p.Done, p.Total)
		case !waiting:
			fmt.Fprintln(w, "checking the archive: waiting for memory that other checks have; it goes on by itself")
		}
		waiting = p.Waiting
	}
}

func (a *addverOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	if a.name == "" || a.version == "" || a.hash == "" {
		return nil, usage("name, version and hash should all be set")
	}
	d, err := digest.Parse(strings.ToLower(a.hash)) // some tools print upper case
	if err != nil {
		return nil, usage("hash should be a hex representation of content sha256 sum, 64 chars long")
	}
	n := registry.NewVersion{Component: a.name, Version: a.version, Digest: d, MustBeNew: a.mustBeNew}
	if n.Meta, err = parseMeta(a.meta); err != nil {
		return nil, err
	}
	got, err := s.Registry.AddVersion(ctx, a.act(s), n, checkProgress(s.Stderr))
	if err != nil {
		return nil, err
	}
	out := added{Name: a.name, Version: a.version, Digest: d, Existed: got.Existed, Warnings: got.Warnings, Removed: got.Trimmed}
	if a.dryRun {
		out.DryRun, out.What = true, got.What
	} else if got.Existed {
		fmt.Fprintf(s.Stderr, "note: version %s of %s exists already, with the same content\n", a.version, a.name)
	}
	for _, warning := range got.Warnings {
		fmt.Fprintf(s.Stderr, "warning: %s\n", Clean(warning))
	}
	for _, version := range got.Trimmed {
		if !a.dryRun {
			fmt.Fprintf(s.Stderr, "note: removed the old version %s, which nothing uses\n", version)
		}
	}
	return out, nil
}

type delverOp struct {
	componentName
	acting
	version string
	force   bool
}

func (d *delverOp) Flags(fs *pflag.FlagSet) {
	d.componentName.Flags(fs)
	fs.StringVar(&d.version, "version", "", "`name` of the version")
	fs.BoolVar(&d.force, "force", false, "delete it even if a configuration needs it to be rolled back; needs -note")
	d.acting.Flags(fs)
}

func (d *delverOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	switch {
	case d.name == "" || d.version == "":
		return nil, usage("name and version should both be set")
	case d.force && d.note == "":
		return nil, usage("-force needs -note, which says why")
	}
	return d.told(s.Registry.DeleteVersion(ctx, d.act(s), d.name, d.version, d.force))
}

type delcompOp struct {
	componentArg
	acting
	force bool
}

func (d *delcompOp) Flags(fs *pflag.FlagSet) {
	d.componentArg.Flags(fs)
	fs.BoolVar(&d.force, "force", false, "yes, delete it")
	d.acting.Flags(fs)
}

// noForce keeps the text of the original tool set.
const noForce = "Run command with -force flag to confirm removal"

func (d *delcompOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if err := alone(d.name, args); err != nil {
		return nil, err
	}
	if !d.force && !d.dryRun {
		return nil, usage(noForce)
	}
	return d.told(s.Registry.DeleteComponent(ctx, d.act(s), d.name))
}
