package ctlcmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/pflag"

	"deploytools/atomic"
	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/layerflags"
	"deploytools/layers"
	"deploytools/layers/digest"
	"deploytools/layers/manifest"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

var unpackCommand = cli.Command{
	Name: "unpack", Args: "FILE...", Files: true, Short: "stack layers into a new directory",
	Long: "Makes the tree that an agent would make of these layers: a later one wins over\n" +
		"those before it. - is stdin. The directory must not exist; it appears when it is\n" +
		"complete and on disk. If one archive is refused, nothing is left.",
	Examples: []string{"deployctl unpack base.tar.gz web.tar.gz -into /tmp/tree", "deployctl pack -o - build | deployctl unpack - -into copy"},
	Statuses: []wire.Status{wire.Conflict},
	New:      func() cli.Op { return &unpack{} },
}

// unpack is one call of the command.
type unpack struct {
	layers.Options
	into string
	json bool
}

// unpacked is what unpack -json prints.
type unpacked struct {
	Schema   console.Schema `json:"schema"`
	Into     string         `json:"into"`
	Manifest digest.Digest  `json:"manifest"`
	Size     int64          `json:"size_bytes"`
	Unpacked int64          `json:"unpacked_bytes"`
	Entries  int            `json:"entries"`
}

// Flags defines the flags.
func (u *unpack) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&u.into, "into", "", "`directory` to make")
	cli.FileFlag(fs, "into")
	fs.BoolVar(&u.Owner, "owner", false, "give files the owners that the archives name; needs root")
	fs.BoolVar(&u.json, "json", false, "print an object instead of a line")
	layerflags.Define(fs, &u.Options)
}

// Run unpacks the archives.
func (u *unpack) Run(ctx context.Context, o *cli.IO, args []string) error {
	stdin := slices.Index(args, "-")
	switch {
	case len(args) == 0:
		return cli.Usage("no file given")
	case u.into == "":
		return cli.Usage("unpack needs a directory to make: -into DIR")
	case stdin >= 0 && slices.Contains(args[stdin+1:], "-"):
		return cli.Usage("stdin can be one layer only")
	}
	info, err := u.unpack(ctx, o, args)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, atomic.ErrOccupied) {
		return cli.WithStatus(fmt.Errorf("%s exists already; unpack makes a new directory", u.into), wire.Conflict)
	}
	if err != nil {
		return err
	}
	defer info.Close()
	warn(o, info.Warnings)
	paths, text := 0, digest.NewWriter()
	for _, err := range info.Manifest {
		if err != nil {
			return err
		}
		paths++
	}
	if u.json {
		if err := manifest.Encode(text, info.Manifest); err != nil {
			return err
		}
		return json.NewEncoder(o.Stdout).Encode(unpacked{console.Schema{}, u.into, text.Digest(), info.Size, info.Unpacked, paths})
	}
	_, err = fmt.Fprintf(o.Stdout, "%s: %s from %s, %s unpacked\n", cli.Clean(u.into),
		entries(int64(paths)), plural(int64(len(args)), "layer"), plural(info.Unpacked, "byte"))
	return err
}

// unpack fills a staged directory, so that none is left where it fails.
func (u *unpack) unpack(ctx context.Context, o *cli.IO, files []string) (*layers.Info, error) {
	d, err := atomic.Stage(u.into)
	if err != nil {
		return nil, err
	}
	var ls []layers.Layer
	for _, file := range files {
		ls = append(ls, layers.Layer{Name: file, Open: func() (io.ReadCloser, error) { return openLayer(o, file, "unpacking") }})
	}
	info, err := layers.Unpack(ctx, d.Path(), ls, u.Options)
	if err == nil {
		err = d.Commit()
	}
	if err != nil {
		return nil, errors.Join(err, d.Abort())
	}
	return info, nil
}
