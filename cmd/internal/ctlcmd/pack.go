package ctlcmd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"deploytools/atomic"
	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/layerflags"
	"deploytools/layers"
	"deploytools/layers/digest"
	"deploytools/registry/console"
)

var packCommand = cli.Command{
	Name: "pack", Args: "DIR", Files: true, Short: "make a layer from a directory",
	Long: "Equal trees make equal archives, whoever packs them, when and where: entries\n" +
		"are sorted, belong to user and group 0, and have one time, 1970 unless -time or\n" +
		"the variable SOURCE_DATE_EPOCH says another. Modes are kept, but for writing by\n" +
		"group and others. Hard links stay links.\n\n" +
		"What deployctl lint would refuse is refused. The file appears when it is\n" +
		"complete, or not at all. Its digest goes to stdout, or to stderr where the\n" +
		"archive itself goes to stdout.",
	Examples: []string{"deployctl pack -o web.tar.gz build", "deployctl pack -time 2024-05-01T00:00:00Z -o web.tar.gz build", "deployctl pack -o - build | ssh host 'cat > web.tar.gz'"},
	New:      func() cli.Op { return &pack{} },
}

// pack is one call of the command.
type pack struct {
	layers.PackOptions
	out  string
	time string
	json bool
}

// packed is what pack -json prints.
type packed struct {
	Schema   console.Schema `json:"schema"`
	File     string         `json:"file"`
	Digest   digest.Digest  `json:"digest"`
	Size     int64          `json:"size_bytes"`
	Unpacked int64          `json:"unpacked_bytes"`
	Entries  int64          `json:"entries"`
}

// Flags defines the flags.
func (p *pack) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&p.out, "o", "", "`file` to write, - for stdout")
	cli.FileFlag(fs, "o")
	fs.BoolVar(&p.KeepTimes, "keep-times", false, "keep each file's own time")
	fs.StringVar(&p.time, "time", "", "`time` of every entry, as 2006-01-02T15:04:05Z or in seconds since 1970")
	fs.IntVar(&p.Level, "level", 6, "effort of compression, `1-9`")
	fs.BoolVar(&p.json, "json", false, "print an object instead of a line")
	layerflags.Define(fs, &p.Options)
}

// Run packs the directory.
func (p *pack) Run(ctx context.Context, o *cli.IO, args []string) error {
	switch {
	case len(args) != 1:
		return cli.Usage("pack needs one directory")
	case p.out == "":
		return cli.Usage("pack needs a file to write: -o FILE")
	case p.Level < 1 || p.Level > 9:
		return cli.Usage("level %d is not between 1 and 9", p.Level)
	case p.KeepTimes && p.time != "":
		return cli.Usage("-keep-times and -time exclude each other")
	}
	var err error
	if p.Time, err = p.timeOf(o); err != nil {
		return err
	}
	info, to, err := p.pack(ctx, o, args[0])
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	warn(o, info.Warnings)
	if p.json {
		return json.NewEncoder(to).Encode(packed{console.Schema{}, p.out, info.Digest, info.Size, info.Unpacked, info.Entries})
	}
	_, err = fmt.Fprintf(to, "%s  %s\n", info.Digest, cli.Clean(p.out))
	return err
}

// timeOf reads -time or, without it, SOURCE_DATE_EPOCH.
func (p *pack) timeOf(o *cli.IO) (time.Time, error) {
	s, from := p.time, "-time"
	if s == "" && !p.KeepTimes {
		s, from = o.Env("SOURCE_DATE_EPOCH"), "environment variable SOURCE_DATE_EPOCH"
	}
	if s == "" {
		return time.Time{}, nil
	}
	if n, err := strconv.ParseInt(s, 10, 40); err == nil {
		return time.Unix(n, 0), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, cli.Usage("%s: %q is no time such as 2006-01-02T15:04:05Z and no number of seconds", from, s)
	}
	return t, nil
}

// pack writes the archive and says where its digest goes.
func (p *pack) pack(ctx context.Context, o *cli.IO, dir string) (*layers.Info, io.Writer, error) {
	shown := newProgress(o, "packing "+dir, -1)
	defer shown.Close()
	if p.out == "-" {
		// Also to one that cannot move its cursor.
		if f, ok := o.Stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return nil, nil, cli.Usage("an archive does not go to a terminal: -o FILE")
		}
		info, err := layers.Pack(ctx, io.MultiWriter(o.Stdout, shown), dir, p.PackOptions)
		return info, o.Stderr, err
	}
	if err := outside(p.out, dir); err != nil {
		return nil, nil, err
	}
	f, err := atomic.Create(p.out, 0o644)
	if err != nil {
		return nil, nil, cli.Unmade(err)
	}
	defer f.Abort() // nothing, once it is committed
	info, err := layers.Pack(ctx, io.MultiWriter(f, shown), dir, p.PackOptions)
	if err == nil {
		err = f.Commit()
	}
	return info, o.Stdout, err
}

// outside refuses a file below dir: it would become a part of itself.
func outside(file, dir string) error {
	top, err := os.Stat(dir)
	if err != nil {
		return cli.WithHint(err, "name the directory whose content the layer is to have: pack DIR -o FILE")
	}
	where, err := filepath.EvalSymlinks(filepath.Dir(file))
	if err != nil {
		return cli.Unmade(err)
	}
	if where, err = filepath.Abs(where); err != nil {
		return err
	}
	for {
		if info, err := os.Stat(where); err == nil && os.SameFile(info, top) {
			return cli.WithHint(fmt.Errorf("%s: lies in the directory that is packed", file), "name a file outside of it: -o FILE")
		}
		if where == filepath.Dir(where) {
			return nil
		}
		where = filepath.Dir(where)
	}
}
