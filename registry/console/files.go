package console

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
	"deploytools/registry"
)

// fileRow is what one name in a tree is. Paths and targets are written as in a
// manifest, so that any of them is one word.
type fileRow struct {
	Type   string        `json:"type"`
	Mode   string        `json:"mode"` // octal
	UID    int           `json:"uid"`
	GID    int           `json:"gid"`
	Size   int64         `json:"size"`
	Digest digest.Digest `json:"digest"`
	Target string        `json:"target,omitempty"`
}

var typeNames = map[manifest.Type]string{manifest.File: "file", manifest.Dir: "directory", manifest.Symlink: "symlink"}

func fileRowOf(e *manifest.Entry) *fileRow {
	if e == nil {
		return nil
	}
	f := fileRow{typeNames[e.Type], fmt.Sprintf("%04o", e.Mode), e.UID, e.GID, e.Size, e.Digest, ""}
	if e.Type == manifest.Symlink {
		f.Target = manifest.Escape(e.Target)
	}
	return &f
}

func (f fileRow) owner() string { return fmt.Sprintf("%d:%d", f.UID, f.GID) }

// fileEntry is a file of a version.
type fileEntry struct {
	Schema Schema `json:"schema"`
	Path   string `json:"path"`
	fileRow
	verbose bool
}

func (f fileEntry) Text(w io.Writer) error {
	line := fmt.Sprintf("%-9s   %s   %-7s   %10d   ", f.Type, f.Mode, f.owner(), f.Size)
	if f.verbose {
		content := "-"
		if f.Type == typeNames[manifest.File] {
			content = f.Digest.String()
		}
		line += fmt.Sprintf("%-64s   ", content)
	}
	line += f.Path
	if f.Target != "" {
		line += " -> " + f.Target
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

type filesOp struct {
	componentName
	version string
	verbose bool
}

func (f *filesOp) Flags(fs *pflag.FlagSet) {
	f.componentName.Flags(fs)
	fs.StringVar(&f.version, "version", "", "`name` of the version")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "show digests too")
}

func (f *filesOp) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	if flag == "" {
		return layerNames(ctx, s)
	}
	return f.componentName.suggest(ctx, s, flag)
}

func (f *filesOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if f.name != "" || f.version != "" {
		args = append([]string{f.name + ":" + f.version}, args...)
	}
	if len(args) != 1 {
		return nil, usage("give one version: COMPONENT:VERSION, or -name and -version")
	}
	ref, err := registry.ParseLayerRef(args[0])
	if err != nil {
		return nil, err
	}
	v, err := s.Registry.Version(ctx, ref)
	if err != nil {
		return nil, err
	}
	return rows(func(yield func(Result, error) bool) {
		for e, err := range s.Registry.Files(ctx, s.Caller.Configs, registry.Side{Name: ref.String(), Digest: v.Digest}) {
			if !yield(fileEntry{Path: manifest.Escape(e.Path), fileRow: *fileRowOf(&e), verbose: f.verbose}, err) {
				return
			}
		}
	}), nil
}
