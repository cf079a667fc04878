package agentcmd

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"golang.org/x/time/rate"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
)

// bytesRate is a flag: bytes a second. 0 is no limit.
type bytesRate int64

// minRate is what SSH can work with: one of its packets, of 32 KiB, has to come
// before the registry seems to be silent.
const minRate = 1 << 10

// String returns the number as Set takes it.
func (r *bytesRate) String() string { return strconv.FormatInt(int64(*r), 10) }

// Type is the name of the value in help.
func (*bytesRate) Type() string { return "rate" }

// Set reads a number such as 500K or 10MiB, as agent.ParseRoom does.
func (r *bytesRate) Set(text string) error {
	n, err := agent.ParseRoom(text)
	switch {
	case err != nil || text == "" || n.Percent > 0:
		return cli.Usage("%q should be a number of bytes a second, such as 500K or 10M", text)
	case n.Bytes > 0 && n.Bytes < minRate:
		return cli.Usage("%q should be at least %dK, or 0 for no limit", text, minRate>>10)
	}
	*r = bytesRate(n.Bytes)
	return nil
}

type dial = func(ctx context.Context, network, addr string) (net.Conn, error)

// dial returns how to connect, so that all connections together receive no
// faster than the rate; nil: without a limit. What is sent is not limited: an
// agent sends next to nothing.
func (r bytesRate) dial() dial {
	if r == 0 {
		return nil
	}
	// A burst is what a tenth of a second brings, so that a line which others
	// use is not full even for a moment.
	l := rate.NewLimiter(rate.Limit(r), int(min(max(int64(r)/10, minRate), 256<<10)))
	var d net.Dialer
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return newSlowed(c, l), nil
	}
}

// slowed is a connection that is read from no faster than the limit. What it has
// not read stays with the kernel, which soon takes no more: so the sender is
// slowed down as well.
type slowed struct {
	net.Conn
	l    *rate.Limiter
	open context.Context
	end  context.CancelFunc
}

func newSlowed(c net.Conn, l *rate.Limiter) *slowed {
	open, end := context.WithCancel(context.Background())
	return &slowed{c, l, open, end}
}

// Read waits after it has read, for as long as that many bytes may take.
func (c *slowed) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(len(p), c.l.Burst())])
	if late := c.l.WaitN(c.open, n); late != nil && err == nil {
		err = fmt.Errorf("cannot read: %w", net.ErrClosed)
	}
	return n, err
}

// Close ends a Read that waits.
func (c *slowed) Close() error {
	c.end()
	return c.Conn.Close()
}
