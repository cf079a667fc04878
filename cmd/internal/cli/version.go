package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"

	"github.com/spf13/pflag"
)

// Build says what a program was built from.
type Build struct {
	Version string `json:"version"`          // the tag, or "(devel)"
	Commit  string `json:"commit,omitempty"` // "" when it was built outside a checkout
	Time    string `json:"time,omitempty"`   // of the commit, RFC 3339
	Dirty   bool   `json:"dirty"`            // there were changes besides the commit
	Go      string `json:"go"`
}

// ReadBuild returns what the linker recorded in this program.
func ReadBuild() Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Build{Version: "(devel)"}
	}
	return buildOf(info)
}

func buildOf(info *debug.BuildInfo) Build {
	b := Build{Version: info.Main.Version, Go: info.GoVersion}
	if b.Version == "" {
		b.Version = "(devel)"
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Dirty = s.Value == "true"
		}
	}
	return b
}

// String returns the build in one line.
func (b Build) String() string {
	s := b.Version
	if b.Commit != "" {
		s += ", commit " + b.Commit
		if b.Dirty {
			s += " with changes"
		}
	}
	if b.Time != "" {
		s += " of " + b.Time
	}
	return s + ", " + b.Go
}

// versionOp is the command version.
type versionOp struct {
	program string
	json    bool
}

func (v *versionOp) Flags(fs *pflag.FlagSet) {
	fs.BoolVar(&v.json, "json", false, "print one JSON object")
}

func (v *versionOp) Run(_ context.Context, o *IO, _ []string) error {
	if v.json {
		e := json.NewEncoder(o.Stdout)
		e.SetIndent("", "\t")
		return e.Encode(struct {
			Program string `json:"program"`
			Build
		}{v.program, ReadBuild()})
	}
	_, err := fmt.Fprintln(o.Stdout, v.program, ReadBuild())
	return err
}
