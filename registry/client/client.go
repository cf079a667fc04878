package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Client holds at most one connection to one registry.
type Client struct {
	o Options
	// dialing is held by the one call that connects.
	dialing chan struct{}
	exposed map[string]bool // key files that were warned of; belongs to who holds dialing

	mu     sync.Mutex // guards what follows
	conn   *conn      // nil, or the last one
	closed bool
}

// New returns a client, without connecting. An error says what is wrong with
// the options. The caller closes the client.
func New(o Options) (*Client, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	return &Client{o: o, dialing: make(chan struct{}, 1), exposed: map[string]bool{}}, nil
}

// Close ends the connection and every call that waits. Further calls fail.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	cn := c.conn
	c.mu.Unlock()
	if cn != nil {
		cn.kill(errClosed)
	}
	return nil
}

// Connect connects unless the connection stands already. The other methods do
// this by themselves; it is for those who want to know before they begin.
func (c *Client) Connect(ctx context.Context) error {
	_, err := c.connection(ctx)
	return err
}

// call runs f on the connection, within limit if it is not 0. The end of ctx
// ends the connection and with it whatever f waits for.
func (c *Client) call(ctx context.Context, limit time.Duration, f func(context.Context, *conn) error) (err error) {
	cn, err := c.connection(ctx)
	if err != nil {
		return err
	}
	if limit != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w within %v", errSilent, limit))
		defer cancel()
	}
	stop := context.AfterFunc(ctx, func() { cn.kill(context.Cause(ctx)) })
	defer stop()
	// What a hostile registry sends is parsed by two libraries on this stack.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("internal error: %v", r)
			cn.kill(err)
		}
	}()
	return f(ctx, cn)
}

// broken ends the connection because of err, and returns the error to show: why
// ctx ended, if it did, else that the connection was lost.
func (c *Client) broken(ctx context.Context, cn *conn, err error) error {
	cause := cn.kill(err)
	if why := context.Cause(ctx); why != nil && !errors.Is(why, errSilent) {
		return why
	}
	if errors.Is(cause, errClosed) {
		return cause
	}
	return c.lost(cause)
}

// connection returns the connection that stands, or a new one.
func (c *Client) connection(ctx context.Context) (*conn, error) {
	select {
	case c.dialing <- struct{}{}:
		defer func() { <-c.dialing }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	c.mu.Lock()
	cn, closed := c.conn, c.closed
	c.mu.Unlock()
	switch {
	case closed:
		return nil, errClosed
	case cn != nil && cn.alive():
		return cn, nil
	}
	cn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		cn.kill(errClosed)
		return nil, errClosed
	}
	c.conn = cn
	return cn, nil
}
