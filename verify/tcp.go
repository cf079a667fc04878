package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"deploytools/verify/spec"
)

// maxHeardBytes limits what is heard from a port.
const maxHeardBytes = 64 << 10

// lookTCP connects, says c.Send, and compares what comes with c.Expect and
// c.Body.
func lookTCP(ctx context.Context, c spec.Check, v Vars) Finding {
	e := expected{body: []byte(v.expand(c.Body))}
	var errSend, errFirst error
	e.send, errSend = spec.Unescape(c.Send)
	e.first, errFirst = spec.Unescape(c.Expect)
	if err := errors.Join(errSend, errFirst); err != nil {
		return Finding{Kind: Spec, Detail: err.Error()}
	}
	return eachAddress(ctx, c, c.Addr, func(ctx context.Context, connect func() (net.Conn, error)) Finding {
		conn, err := connect()
		if err != nil {
			return lost(ctx, Dial, err)
		}
		defer conn.Close()
		return e.look(ctx, conn)
	})
}

// expected is what a port is told, and what it should say then.
type expected struct{ send, first, body []byte }

// settled reports whether more bytes can change nothing.
func (e expected) settled(got []byte) bool {
	if !bytes.HasPrefix(got, e.first) {
		return !bytes.HasPrefix(e.first, got)
	}
	return bytes.Contains(got, e.body)
}

func (e expected) look(ctx context.Context, conn net.Conn) Finding {
	var got []byte
	var err error
	if len(e.send) > 0 {
		_, err = conn.Write(e.send)
	}
	for part := make([]byte, 4096); err == nil && !e.settled(got) && len(got) < maxHeardBytes; {
		var n int
		n, err = conn.Read(part)
		got = append(got, part[:n]...)
	}
	f := Finding{}
	switch {
	case bytes.HasPrefix(got, e.first) && bytes.Contains(got, e.body):
	case err != nil && !errors.Is(err, io.EOF):
		f = lost(ctx, Expect, fmt.Errorf("%s said %s so far: %w", conn.RemoteAddr(), excerpt(got), err))
	case !bytes.HasPrefix(got, e.first):
		f.Kind, f.Detail = Expect, fmt.Sprintf("%s says %s, want %s first", conn.RemoteAddr(), excerpt(got), excerpt(e.first))
	default:
		f.Kind, f.Detail = Body, fmt.Sprintf("%s says %s, want %s in it", conn.RemoteAddr(), excerpt(got), excerpt(e.body))
	}
	if f.Kind != "" && errors.Is(err, io.EOF) {
		f.Detail += "; it closed the connection"
	}
	if len(e.first) > 0 || len(e.body) > 0 {
		f.Want, f.Got = excerpt(e.first), excerpt(got)
		if len(e.first) == 0 {
			f.Want = excerpt(e.body)
		}
	}
	return f
}
