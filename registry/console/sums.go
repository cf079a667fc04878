package console

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"path"

	"github.com/spf13/pflag"
)

// sumOp is md5sum, sha1sum or sha256sum for the caller's own uploads: what
// clients such as rclone run to see that a copy arrived as it left. Nothing here
// relies on the weaker two.
type sumOp struct{ hash func() hash.Hash }

func (*sumOp) Flags(*pflag.FlagSet) {}

type sumList struct {
	Schema Schema   `json:"schema"`
	Sums   []sumRow `json:"sums"`
}

type sumRow struct {
	Sum  string `json:"sum"`
	Path string `json:"path"` // "-" for standard input
}

// Text is as the programs of that name print it.
func (l sumList) Text(w io.Writer) error {
	for _, s := range l.Sums {
		if _, err := fmt.Fprintf(w, "%s  %s\n", s.Sum, s.Path); err != nil {
			return err
		}
	}
	return nil
}

func (o *sumOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	out := sumList{Sums: []sumRow{}}
	if len(args) == 0 {
		sum, err := o.of(ctx, s.Stdin)
		out.Sums = append(out.Sums, sumRow{sum, "-"})
		return out, err
	}
	for _, name := range args {
		f, err := s.Registry.OpenFile(ctx, s.Caller, path.Join("/", name))
		if err != nil {
			return nil, err
		}
		size, err := f.Size()
		if err == nil {
			var sum string
			sum, err = o.of(ctx, io.NewSectionReader(f, 0, size))
			out.Sums = append(out.Sums, sumRow{sum, Clean(name)})
		}
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", Clean(name), err)
		}
	}
	return out, nil
}

// of ends soon after ctx has.
func (o *sumOp) of(ctx context.Context, r io.Reader) (string, error) {
	h, piece := o.hash(), make([]byte, 1<<20)
	for {
		n, err := r.Read(piece)
		h.Write(piece[:n])
		switch {
		case err == io.EOF:
			return hex.EncodeToString(h.Sum(nil)), nil
		case err != nil:
			return "", err
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		}
	}
}
