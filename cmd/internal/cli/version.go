package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"

	"github.com/spf13/pflag"

	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// ReadBuild returns what the linker recorded in this program.
func ReadBuild() wire.Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return wire.Build{Version: "(devel)", Format: wire.FormatVersion}
	}
	return buildOf(info)
}

func buildOf(info *debug.BuildInfo) wire.Build {
	b := wire.Build{Version: info.Main.Version, Go: info.GoVersion, Format: wire.FormatVersion}
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
		return e.Encode(struct {
			Schema  console.Schema `json:"schema"`
			Program string         `json:"program"`
			wire.Build
		}{Program: v.program, Build: ReadBuild()})
	}
	_, err := fmt.Fprintln(o.Stdout, v.program, ReadBuild())
	return err
}
