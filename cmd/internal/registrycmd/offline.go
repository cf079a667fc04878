package registrycmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"deploytools/cmd/internal/cli"
	"deploytools/registry"
	"deploytools/registry/boltmeta"
	"deploytools/registry/console"
)

// commands are what can be done without a registry that runs.
func (s *settings) commands() []cli.Command {
	return []cli.Command{
		{
			Name: "fsck", Short: "look whether everything in a directory is there and right",
			Long: `As fsck of the console does, while no registry runs. Opening the database looks at
every page of it. Content that is damaged is marked, so that it will not be served.`,
			Examples: []string{"deploy-registry fsck -dir $DIR -read-data"},
			New:      func() cli.Op { return &fsckOp{s: s} },
		},
		{
			Name: "restore", Args: "<FILE", Files: true, Short: "fill an empty directory with a backup from standard input",
			Long: `Everything is compared with its digest on the way. A restore that was cut short
leaves a directory that no registry starts with; the same command begins anew.
Files of yours in the directory, such as keys files, stay as they are.`,
			Examples: []string{"deploy-registry restore -dir $DIR <backup.tar"},
			New:      func() cli.Op { return &restoreOp{s: s} },
		},
		{
			Name: "verify-backup", Args: "FILE", Short: "read a backup to its end and check all of it", Files: true,
			Long:     "It needs no directory and changes nothing. A dash is standard input.",
			Examples: []string{"deploy-registry verify-backup backup.tar"},
			New:      func() cli.Op { return &verifyOp{} },
		},
		{
			Name: "migrate", Short: "import the directory of the archived deploy-registry",
			Long: `The registry does it by itself when it starts on such a directory. All versions,
configurations and their history are taken over, and each layer is compared with its
digest: those that are missing or damaged are named. The new database is made beside
the old one, which stays there as state.db.upstream; whatever goes wrong, the old one
is as it was.`,
			Examples: []string{"deploy-registry migrate -dir $DIR -dry-run"},
			New:      func() cli.Op { return &migrateOp{s: s} },
		},
		s.doctorCommand(),
	}
}

// dirFlag is -dir behind the command, which counts more than before it.
type dirFlag struct{ dir string }

func (d *dirFlag) flags(fs *pflag.FlagSet, usage string) {
	fs.StringVar(&d.dir, "dir", "", usage+"; as -dir of the program when not given")
	cli.FileFlag(fs, "dir")
}

func (d *dirFlag) set(s *settings) {
	if d.dir != "" {
		s.dir = d.dir
	}
}

// existing fails where there is no database: opening would make one.
func existing(dir string) error {
	_, err := os.Stat(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return cli.WithHint(fmt.Errorf("directory %s holds no %s", dir, stateFile), "name the directory of the registry with -dir")
	}
	return err
}

func printJSON(o *cli.IO, v any) error {
	e := json.NewEncoder(o.Stdout)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// fsckOp is the command fsck.
type fsckOp struct {
	s *settings
	dirFlag
	readData, json bool
}

func (f *fsckOp) Flags(fs *pflag.FlagSet) {
	f.dirFlag.flags(fs, "`directory` to look at")
	fs.BoolVar(&f.readData, "read-data", false, "read all content and compare it with its digest")
	fs.BoolVar(&f.json, "json", false, "print one JSON object")
}

func (f *fsckOp) Run(ctx context.Context, o *cli.IO, _ []string) error {
	f.set(f.s)
	if err := existing(f.s.dir); err != nil {
		return err
	}
	st, err := f.s.openStore()
	if errors.Is(err, boltmeta.ErrInUse) {
		err = cli.WithHint(err, "a registry runs there: use 'ssh registry fsck'")
	}
	if errors.Is(err, boltmeta.ErrUpstream) {
		err = cli.WithHint(err, "see 'deploy-registry migrate -dry-run'")
	}
	if err != nil {
		return cli.Unwritable(err)
	}
	got, err := st.check(ctx, o, f.readData)
	if err = errors.Join(err, st.close()); err != nil {
		return err
	}
	out := console.NewChecked(got)
	if f.json {
		err = printJSON(o, out)
	} else {
		err = out.Text(o.Stdout)
	}
	if err != nil {
		return err
	}
	return out.Outcome()
}

func (s *store) check(ctx context.Context, o *cli.IO, readData bool) (registry.Checked, error) {
	progress := cli.Progress(o, "reading content", -1)
	defer progress.Close()
	var seen int64
	return s.reg.Fsck(ctx, registry.FsckOptions{ReadData: readData, Progress: func(done, _ int64) {
		count(progress, done-seen)
		seen = done
	}})
}
