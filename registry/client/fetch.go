package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	syncatomic "sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// A channel moves at most its window of 2 MiB each round trip, whatever the
// line could do. So a fetch has several lanes where the round trip is long;
// where it is short they only cost.
const lanesFromRT = 2 * time.Millisecond

// Fetch writes the blob d to w from offset on, in order. What it wrote before
// an error stays good, so that the caller may go on behind it; the whole has to
// be compared with d. The error is what w returned, wire.ErrNotFound when the
// registry has no such blob, wire.ErrUnreachable when the connection broke or
// no byte came for Timeouts.Stall, or says what is wrong with the blob. A
// transfer that moves is never cut.
func (c *Client) Fetch(ctx context.Context, d digest.Digest, offset int64, w io.Writer) error {
	if offset < 0 {
		return fmt.Errorf("cannot fetch %s from offset %d", d, offset)
	}
	return c.call(ctx, 0, func(ctx context.Context, cn *conn) error {
		if !c.o.NoLanes && !cn.noLanes.Load() {
			f := &fetch{c: c, cn: cn, d: d, w: w}
			err := f.run(ctx, offset)
			if !errors.Is(err, errNoLanes) {
				return err
			}
			cn.noLanes.Store(true)
		}
		return c.read(ctx, cn, d, offset, w)
	})
}

// errNoLanes says that the registry is of the original kind.
var errNoLanes = errors.New("registry knows no lanes")

// fetch is a blob that comes over lanes: see wire.FetchChannelType.
type fetch struct {
	c  *Client
	cn *conn
	d  digest.Digest
	w  io.Writer

	lanes  []ssh.Channel
	status chan wire.Status // of lane 0; closed without one when that ends

	moved   syncatomic.Int64 // bytes
	waiting syncatomic.Bool  // for the registry, rather than for w
}

func (f *fetch) what() string { return "fetch " + f.d.String() }

func (f *fetch) run(ctx context.Context, offset int64) error {
	f.waiting.Store(true)
	stop := f.cn.watchStall(f.c.o.Timeouts.Stall, func() (int64, bool) { return f.moved.Load(), f.waiting.Load() })
	defer stop()
	defer f.close()
	lanes := 1
	// Of fetches beside each other only the first has many: a registry has
	// limits, and between them they fill the line.
	if first := f.cn.fetching.Add(1) == 1; first && f.cn.roundTrip() >= lanesFromRT {
		lanes = wire.MaxFetchLanes
	}
	defer f.cn.fetching.Add(-1)
	err := f.open(offset, lanes)
	if e, ok := errors.AsType[*ssh.OpenChannelError](err); ok && e.Reason == ssh.ResourceShortage && lanes > 1 {
		f.close() // a registry may allow fewer
		err = f.open(offset, 1)
	}
	if err != nil {
		return f.refused(ctx, err)
	}
	return f.copy(ctx)
}

// refused returns the error for lanes that could not be opened.
func (f *fetch) refused(ctx context.Context, err error) error {
	e, ok := errors.AsType[*ssh.OpenChannelError](err)
	switch {
	case !ok:
		return f.c.broken(ctx, f.cn, err)
	case e.Reason == ssh.UnknownChannelType:
		return errNoLanes
	case e.Reason == ssh.ConnectionFailed:
		return fmt.Errorf("cannot %s: registry has nothing there: %w", f.what(), wire.ErrNotFound)
	}
	return fmt.Errorf("cannot %s: registry says %s", f.what(), shorten(e.Message))
}

// open opens all lanes at the same time. With an error it may have opened some.
func (f *fetch) open(offset int64, lanes int) error {
	q := wire.FetchRequest{Digest: f.d, Offset: offset, ID: f.cn.fetches.Add(1), Lanes: lanes}
	f.lanes = make([]ssh.Channel, lanes)
	f.status = make(chan wire.Status, 1)
	errs := make([]error, lanes)
	var wg sync.WaitGroup
	for i := range lanes {
		wg.Go(func() {
			q := q
			q.Lane = i
			lane, err := opened(f.cn, func() (lane, error) {
				ch, requests, err := f.cn.ssh.OpenChannel(wire.FetchChannelType, q.Encode())
				return lane{ch, requests}, err
			})
			if errs[i] = err; err != nil {
				return
			}
			f.lanes[i] = lane.ch
			if i > 0 {
				go ssh.DiscardRequests(lane.requests)
			} else {
				go awaitStatus(lane.requests, f.status)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// lane is an open channel.
type lane struct {
	ch       ssh.Channel
	requests <-chan *ssh.Request
}

// awaitStatus passes the exit status on. It ends with the channel.
func awaitStatus(requests <-chan *ssh.Request, to chan<- wire.Status) {
	defer close(to)
	for r := range requests {
		var p struct{ Status uint32 }
		if r.Type == "exit-status" && ssh.Unmarshal(r.Payload, &p) == nil && p.Status < 256 {
			select {
			case to <- wire.Status(p.Status):
			default: // one is enough
			}
		}
		if r.WantReply {
			r.Reply(false, nil)
		}
	}
}

func (f *fetch) close() {
	for _, ch := range f.lanes {
		if ch != nil {
			ch.Close()
		}
	}
}

// fetchBuffer is how much is written at a time at most.
const fetchBuffer = 256 << 10

// copy writes what comes, each packet as it comes: what is held back would be
// lost with the connection.
func (f *fetch) copy(ctx context.Context) error {
	buf := make([]byte, fetchBuffer)
	for turn := 0; ; turn++ {
		ch := f.lanes[turn%len(f.lanes)]
		for left := wire.FetchUnit; left > 0; {
			part := buf
			if len(f.lanes) > 1 {
				part = buf[:left]
			}
			n, err := ch.Read(part)
			f.moved.Add(int64(n))
			if n > 0 {
				f.waiting.Store(false)
				if _, err := f.w.Write(part[:n]); err != nil {
					return err
				}
				f.waiting.Store(true)
			}
			// With bytes it is about widening the window, which fails behind the
			// end of the connection: there may be more that had come before.
			if err != nil && n == 0 {
				return f.end(ctx, err)
			}
			if len(f.lanes) > 1 {
				left -= n
			}
		}
	}
}

// end says what the end of the bytes means.
func (f *fetch) end(ctx context.Context, err error) error {
	status, told := <-f.status
	switch {
	case !told && f.cn.answers():
		return fmt.Errorf("cannot %s: registry has closed it: %w", f.what(), io.ErrUnexpectedEOF)
	case !told:
		return f.c.broken(ctx, f.cn, err)
	case status != wire.OK:
		return fmt.Errorf("cannot %s: registry could not read it to its end", f.what())
	}
	return nil
}
