package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"deploytools/verify/spec"
)

// lookTCP connects, and compares the first bytes that come with c.Expect. It
// sends nothing.
func lookTCP(ctx context.Context, c spec.Check, _ Vars) Finding {
	conn, err := connect(ctx, c.Addr)
	if err != nil {
		return lost(ctx, Dial, err)
	}
	defer conn.Close()
	if c.Expect == "" {
		return Finding{}
	}
	want := []byte(c.Expect)
	got := make([]byte, 0, len(want)+512)
	for len(got) < len(want) && bytes.HasPrefix(want, got) && err == nil {
		var n int
		n, err = conn.Read(got[len(got):cap(got)])
		got = got[:len(got)+n]
	}
	f := Finding{}
	switch {
	case bytes.HasPrefix(got, want):
	case err != nil && !errors.Is(err, io.EOF):
		f = lost(ctx, Expect, fmt.Errorf("%s said %s so far: %w", c.Addr, excerpt(got), err))
	default:
		f.Kind = Expect
		f.Detail = fmt.Sprintf("%s says %s, want %s first", c.Addr, excerpt(got), excerpt(want))
		if errors.Is(err, io.EOF) {
			f.Detail += "; it closed the connection"
		}
	}
	f.Want, f.Got = excerpt(want), excerpt(got)
	return f
}
