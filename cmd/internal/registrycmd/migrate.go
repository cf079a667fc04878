package registrycmd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/pflag"

	"deploytools/cmd/internal/cli"
	"deploytools/registry"
	"deploytools/registry/boltmeta"
	"deploytools/registry/console"
	"deploytools/registry/fsblobs"
)

// migration says how an import goes.
type migration struct {
	dryRun, skip bool
	progress     func(done, total int)
}

// migrate imports the database of the archived tool set. It returns what it
// came to, and what was passed over.
func (s *settings) migrate(ctx context.Context, m migration) (got registry.Imported, skipped []string, err error) {
	blobs, _, err := fsblobs.Open(s.dir)
	if err != nil {
		return got, nil, err
	}
	fill := func(up registry.Upstream) (map[string][]byte, error) {
		if m.skip {
			up, skipped = registry.Importable(up)
		}
		got, err = registry.Import(ctx, up, registry.ImportOptions{
			Blobs: blobs, Check: checkFunc(s.layers), DryRun: m.dryRun, Progress: m.progress,
		})
		return got.Records, err
	}
	path := filepath.Join(s.dir, stateFile)
	if !m.dryRun {
		err = boltmeta.Import(path, boltmeta.Options{}, fill)
		return got, skipped, err
	}
	up, err := boltmeta.ReadUpstream(path, boltmeta.Options{})
	if err == nil {
		_, err = fill(up)
	}
	return got, skipped, err
}

// migrateOp is the command migrate.
type migrateOp struct {
	s *settings
	dirFlag
	migration
	json bool
}

func (m *migrateOp) Flags(fs *pflag.FlagSet) {
	m.dirFlag.flags(fs, "`directory` with the database of the archived deploy-registry")
	fs.BoolVar(&m.dryRun, "dry-run", false, "say what would come of it, and change nothing")
	fs.BoolVar(&m.skip, "skip", false, "pass over what cannot be imported, such as names with spaces")
	fs.BoolVar(&m.json, "json", false, "print one JSON object")
}

type migrated struct {
	Schema         int                `json:"schema"`
	DryRun         bool               `json:"dry_run"`
	Versions       int                `json:"versions"`
	Configurations int                `json:"configurations"`
	Revisions      int                `json:"revisions"`
	Layers         int                `json:"whole_layers"`
	Skipped        []string           `json:"skipped"`
	Faults         []console.FaultRow `json:"faults"`
}

func (m *migrateOp) Run(ctx context.Context, o *cli.IO, _ []string) error {
	m.set(m.s)
	if err := existing(m.s.dir); err != nil {
		return err
	}
	got, skipped, err := m.s.migrate(ctx, m.migration)
	if errors.Is(err, boltmeta.ErrNotUpstream) {
		return cli.WithHint(err, "there is nothing to do: start deploy-registry")
	}
	if err != nil {
		return m.s.explain(err)
	}
	if m.json {
		return printJSON(o, migrated{1, m.dryRun, got.Versions, got.Configurations, got.Revisions, got.Layers, append([]string{}, skipped...), console.FaultRows(got.Faults)})
	}
	for _, what := range skipped {
		fmt.Fprintf(o.Stdout, "passed over: %s\n", cli.Clean(what))
	}
	if err := console.WriteFaults(o.Stdout, console.FaultRows(got.Faults)); err != nil {
		return err
	}
	verb := "imported"
	if m.dryRun {
		verb = "would be imported"
	}
	_, err = fmt.Fprintf(o.Stdout, "%s: %d versions, %d configurations with %d revisions; %d layers are whole, %d faults\n",
		verb, got.Versions, got.Configurations, got.Revisions, got.Layers, len(got.Faults))
	return err
}
