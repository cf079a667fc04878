package ctlcmd

import (
	"archive/tar"
	"bytes"
	"context"
	_ "embed" // apply.sh
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"deploytools/atomic"
	"deploytools/cmd/internal/cli"
	"deploytools/layers/digest"
	"deploytools/registry/client"
	"deploytools/registry/wire"
)

//go:embed apply.sh
var applyScript []byte

func bundleCommand(r *remote) cli.Command {
	return cli.Command{
		Name: "bundle", Short: "put a configuration and its layers into one file, for a host without an agent",
		Long: `The file is a tar archive: the newest revision of the configuration, its layers, their
SHA-256, and apply.sh, which needs a POSIX shell, tar and GNU coreutils. "sh apply.sh DIR
HOOK" checks the layers, unpacks them into a new root, moves DIR/current, runs the hook, and
goes back when it fails. It makes no checks from outside and collects no old roots: where a
host can run deploy-agent, that is the better way.`,
		Examples: []string{
			"deployctl bundle -name project1 -o project1.tar",
			"deployctl bundle -name project1 -o - | ssh host 'mkdir bundle && tar -xC bundle && sh bundle/apply.sh /srv/project1'",
		},
		Statuses: transportStatuses,
		New:      func() cli.Op { return &bundle{r: r} },
	}
}

// bundle is one call of the command.
type bundle struct {
	r         *remote
	name, out string
}

// Flags defines the flags.
func (b *bundle) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&b.name, "name", "", "`name` of the configuration")
	cli.NamedFlag(fs, "name")
	fs.StringVar(&b.out, "o", "", "`file` to write, - for stdout")
	cli.FileFlag(fs, "o")
}

// Run fetches the configuration and writes the bundle, which appears when it is
// complete or not at all.
func (b *bundle) Run(ctx context.Context, o *cli.IO, args []string) error {
	switch {
	case len(args) > 0:
		return cli.Usage("unexpected argument %q", args[0])
	case b.name == "" || b.out == "":
		return cli.Usage("name and o should both be set: -name NAME -o FILE")
	}
	if err := wire.CheckName(b.name); err != nil {
		return cli.Usage("-name %q: %w", b.name, err)
	}
	c, err := b.r.dial(ctx, o)
	if err != nil {
		return err
	}
	defer c.Close()
	conf, err := c.Configuration(ctx, b.name)
	if err != nil {
		return b.r.explain(err)
	}
	if b.out == "-" {
		if f, ok := o.Stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return cli.Usage("an archive does not go to a terminal: -o FILE")
		}
		return b.write(ctx, o, c, conf, o.Stdout)
	}
	f, err := atomic.Create(b.out, 0o644)
	if err != nil {
		return cli.Unmade(err)
	}
	defer f.Abort() // nothing, once it is committed
	if err := b.write(ctx, o, c, conf, f); err != nil {
		return err
	}
	if err := f.Commit(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(o.Stdout, "%s  revision %d of %s, %d layers\n", cli.Clean(b.out), conf.Revision, conf.Name, len(conf.Layers))
	return err
}

// write writes the bundle. The script comes first, so that a transfer that was cut
// leaves one that says what is missing.
func (b *bundle) write(ctx context.Context, o *cli.IO, c *client.Client, conf *wire.Configuration, to io.Writer) error {
	document, err := json.MarshalIndent(conf, "", "\t")
	if err != nil {
		return err
	}
	var sums bytes.Buffer
	total := int64(0)
	for i, l := range conf.Layers {
		if l.Size == 0 {
			return fmt.Errorf("registry does not say how big layer %s is: it is of the original kind", l.Name)
		}
		fmt.Fprintf(&sums, "%s  %s\n", l.Hash, bundledLayer(i, l))
		total += l.Size
	}
	t := tar.NewWriter(to)
	for _, f := range []struct {
		name string
		mode int64
		data []byte
	}{
		{"apply.sh", 0o755, applyScript},
		{"id", 0o644, fmt.Appendf(nil, "%06d-%s\n", conf.Revision, conf.Digest.Short())},
		{"SHA256SUMS", 0o644, sums.Bytes()},
		{"configuration.json", 0o644, append(document, '\n')},
	} {
		if err := t.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
		if _, err := t.Write(f.data); err != nil {
			return err
		}
	}
	shown := cli.Progress(o, "bundle", total)
	defer shown.Close()
	for i, l := range conf.Layers {
		if err := t.WriteHeader(&tar.Header{Name: bundledLayer(i, l), Mode: 0o644, Size: l.Size, ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
		h := digest.NewWriter()
		if err := c.Fetch(ctx, l.Hash, 0, io.MultiWriter(t, h, shown)); err != nil {
			return b.r.explain(err)
		}
		if h.Digest() != l.Hash {
			return fmt.Errorf("registry sent something else as layer %s: it has the digest %s, not %s", l.Name, h.Digest(), l.Hash)
		}
	}
	return t.Close()
}

// bundledLayer is the name of a layer's archive in a bundle: in the order in which
// they are unpacked, for a shell too.
func bundledLayer(i int, l wire.Layer) string {
	return fmt.Sprintf("layers/%04d-%s.tar.gz", i+1, l.Name)
}
