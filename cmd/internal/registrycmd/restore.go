package registrycmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"deploytools/atomic"
	"deploytools/cmd/internal/cli"
	"deploytools/registry"
	"deploytools/registry/boltmeta"
	"deploytools/registry/console"
	"deploytools/registry/fsblobs"
)

// restoreOp is the command restore.
type restoreOp struct {
	s *settings
	dirFlag
}

func (r *restoreOp) Flags(fs *pflag.FlagSet) {
	r.dirFlag.flags(fs, "`directory` to fill, which no registry uses")
}

func (r *restoreOp) Run(ctx context.Context, o *cli.IO, args []string) error {
	if len(args) > 0 {
		return cli.WithHint(cli.Usage("unexpected argument %q: restore reads standard input", args[0]), "give it the file there: <"+args[0])
	}
	if o.IsTerminal(o.Stdin) {
		return cli.WithHint(cli.Usage("restore reads a backup from standard input, which is a terminal"), "run 'deploy-registry restore -dir DIR <FILE'")
	}
	r.set(r.s)
	started := time.Now()
	progress := cli.Progress(o, "restore", -1)
	got, err := restore(ctx, r.s.dir, o.Stdin, progress)
	progress.Close()
	if errors.Is(err, registry.ErrBackup) {
		err = cli.WithHint(err, fmt.Sprintf("use another backup; %s holds a part of this one and is not used before a restore into it succeeds", r.s.dir))
	}
	if err != nil {
		return cli.Unwritable(err)
	}
	if err := console.WriteFaults(o.Stdout, console.FaultRows(got.Faults)); err != nil {
		return err
	}
	if len(got.Identity) == 0 {
		fmt.Fprintln(o.Stderr, "warning: the backup holds no host key: the registry gets a new one, and hosts refuse it until they are told")
	}
	_, err = fmt.Fprintf(o.Stdout, "restored in %s: %d records, %d blobs, %d bytes of content, as of %s\n",
		time.Since(started).Round(time.Millisecond), got.Records, got.Blobs, got.Bytes, got.Written.Format(time.RFC3339))
	return err
}

// restore fills dir with a backup. From its first change to its last, the file
// unfinished is there, and no registry starts.
func restore(ctx context.Context, dir string, in io.Reader, progress io.Writer) (got registry.Restored, err error) {
	if err := atomic.MkdirAll(dir, 0o700); err != nil {
		return got, err
	}
	unlock, err := boltmeta.LockDir(dir)
	if err != nil {
		return got, err
	}
	defer unlock()
	if err := makeReady(dir); err != nil {
		return got, err
	}
	if got, err = fill(ctx, dir, in, progress); err != nil {
		return got, err
	}
	return got, atomic.Remove(filepath.Join(dir, unfinished))
}

// fill fills the engines and the host keys.
func fill(ctx context.Context, dir string, in io.Reader, progress io.Writer) (got registry.Restored, err error) {
	meta, err := boltmeta.Open(filepath.Join(dir, stateFile), boltmeta.Options{})
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, meta.Close()) }()
	blobs, _, err := fsblobs.Open(dir)
	if err != nil {
		return got, err
	}
	var seen int64
	got, err = registry.Restore(ctx, meta, blobs, in, func(done int64) {
		count(progress, done-seen)
		seen = done
	})
	if err != nil {
		return got, err
	}
	for name, content := range got.Identity {
		if !isHostKey(name) {
			return got, fmt.Errorf("backup holds %q, which is no host key", name)
		}
		if err := atomic.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return got, err
		}
	}
	return got, nil
}

// count tells a progress of n more bytes.
func count(progress io.Writer, n int64) {
	for zeros := make([]byte, 1<<20); n > 0; {
		k := min(n, int64(len(zeros)))
		progress.Write(zeros[:k])
		n -= k
	}
}

func isHostKey(name string) bool {
	ok, _ := filepath.Match(hostKeys, name)
	return ok && !strings.ContainsAny(name, "/\x00")
}

// makeReady makes dir ready for a restore: it refuses one that a registry uses, and
// takes away what a restore that was cut short has left.
func makeReady(dir string) error {
	marker := filepath.Join(dir, unfinished)
	_, err := os.Lstat(marker)
	again := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !again {
		if name := taken(dir); name != "" {
			return cli.WithHint(fmt.Errorf("directory %s holds %s already, nothing was changed", dir, name), "restore into an empty directory, and start deploy-registry with that one")
		}
		text := "A restore into this directory was not finished: run it again.\n"
		if err := atomic.WriteFile(marker, []byte(text), 0o600); err != nil {
			return err
		}
	}
	var errs []error
	for _, name := range left(dir) {
		errs = append(errs, os.RemoveAll(name))
	}
	return errors.Join(errs...)
}

// taken returns what in dir belongs to a registry, or nothing.
func taken(dir string) string {
	for _, name := range left(dir) {
		if entries, err := os.ReadDir(name); err == nil && len(entries) == 0 {
			continue // an empty directory
		}
		return filepath.Base(name)
	}
	return ""
}

// left returns the paths in dir that are a registry's.
func left(dir string) (paths []string) {
	for _, pattern := range []string{stateFile, ".state.db-*.new", filesDir, uploadsDir, hostKeys} {
		found, _ := filepath.Glob(filepath.Join(dir, pattern)) // no error: the patterns are sound
		paths = append(paths, found...)
	}
	return paths
}

// verifyOp is the command verify-backup.
type verifyOp struct{ json bool }

func (v *verifyOp) Flags(fs *pflag.FlagSet) {
	fs.BoolVar(&v.json, "json", false, "print one JSON object")
}

type verified struct {
	Schema  int                `json:"schema"`
	Written time.Time          `json:"written"`
	Records int                `json:"records"`
	Blobs   int                `json:"blobs"`
	Bytes   int64              `json:"bytes"`
	Keys    int                `json:"host_keys"`
	Faults  []console.FaultRow `json:"faults"`
}

func (v *verifyOp) Run(ctx context.Context, o *cli.IO, args []string) error {
	if len(args) != 1 {
		return cli.Usage("give one file, or - for standard input")
	}
	in := o.Stdin
	if args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	got, err := registry.VerifyBackup(ctx, in)
	if err != nil {
		return cli.WithHint(fmt.Errorf("backup %s: %w", args[0], err), "make a new one: ssh registry backup >FILE")
	}
	out := verified{1, got.Written, got.Records, got.Blobs, got.Bytes, len(got.Identity), console.FaultRows(got.Faults)}
	if v.json {
		err = printJSON(o, out)
	} else if err = console.WriteFaults(o.Stdout, out.Faults); err == nil {
		_, err = fmt.Fprintf(o.Stdout, "backup of %s is whole: %d records, %d blobs, %d bytes of content, %d host keys, %d faults\n",
			got.Written.Format(time.RFC3339), out.Records, out.Blobs, out.Bytes, out.Keys, len(out.Faults))
	}
	if err == nil && len(out.Faults) > 0 {
		err = fmt.Errorf("backup is whole, and has %d faults of its registry", len(out.Faults))
	}
	return err
}
