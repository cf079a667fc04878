package client

import (
	"context"
	"errors"
	"fmt"
	"io"

	"deploytools/registry/wire"
)

// Poll asks for the newest revision of a configuration. A state without a
// Digest says that the registry shows none of this name.
//
// A registry of the original kind has no revisions. There the configuration is
// read instead, and its Revision is 0: only the Digest tells one from the next.
func (c *Client) Poll(ctx context.Context, name string) (wire.PollState, error) {
	var state wire.PollState
	question := wire.PollRequest{Names: []string{name}}
	payload, err := wire.EncodePoll(question)
	if err != nil {
		return state, err
	}
	err = c.call(ctx, c.o.Timeouts.Reply, func(ctx context.Context, cn *conn) error {
		if cn.original.Load() {
			state, err = c.pollByReading(ctx, cn, name)
			return err
		}
		ok, answer, err := cn.ssh.SendRequest(wire.PollRequestType, true, payload)
		if err != nil {
			return c.broken(ctx, cn, err)
		}
		if !ok {
			cn.original.Store(true)
			state, err = c.pollByReading(ctx, cn, name)
			return err
		}
		reply, err := wire.DecodePollReply(answer, question)
		if err != nil {
			return fmt.Errorf("registry %s answers a poll with nonsense: %w", c.o.Addr, err)
		}
		state = reply.Configurations[0]
		return nil
	})
	return state, err
}

func (c *Client) pollByReading(ctx context.Context, cn *conn, name string) (wire.PollState, error) {
	state := wire.PollState{Name: name}
	conf, err := c.readConfiguration(ctx, cn, name)
	if errors.Is(err, wire.ErrNotFound) {
		return state, nil
	}
	if err != nil {
		return state, err
	}
	state.Revision, state.Digest, state.Hold = conf.Revision, conf.Digest, conf.Hold
	return state, nil
}

// Configuration returns the newest revision of a configuration, or
// wire.ErrNotFound. It was checked as wire.DecodeConfiguration does.
func (c *Client) Configuration(ctx context.Context, name string) (*wire.Configuration, error) {
	var conf *wire.Configuration
	err := c.call(ctx, c.o.Timeouts.Reply, func(ctx context.Context, cn *conn) error {
		var err error
		conf, err = c.readConfiguration(ctx, cn, name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return conf, nil
}

func (c *Client) readConfiguration(ctx context.Context, cn *conn, name string) (*wire.Configuration, error) {
	if err := wire.CheckName(name); err != nil {
		return nil, err
	}
	what := fmt.Sprintf("read configuration %q", name)
	s, err := cn.sftp.get()
	if err != nil {
		return nil, c.refused(ctx, cn, what, err)
	}
	f, err := s.Open("configs/" + name + ".json")
	if err != nil {
		return nil, c.failed(ctx, cn, s, what, err)
	}
	// Not ReadAll on the file itself, whose WriteTo would believe its size.
	b, err := io.ReadAll(io.LimitReader(f, wire.MaxConfigurationBytes+1))
	if err != nil {
		return nil, c.failed(ctx, cn, s, what, err)
	}
	f.Close()
	cn.sftp.put(s)
	conf, err := wire.DecodeConfiguration(b)
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot %s: %w", what, err)
	case conf.Name != name:
		return nil, fmt.Errorf("cannot %s: it has the name %q: %w", what, conf.Name, wire.ErrConfiguration)
	}
	return conf, nil
}

// failed returns the error for an SFTP request that ended with err, and gives
// the session back unless the connection broke.
func (c *Client) failed(ctx context.Context, cn *conn, s *sftpSession, what string, err error) error {
	err, ok := answered(what, err)
	if !ok {
		return c.broken(ctx, cn, err)
	}
	cn.sftp.put(s)
	return err
}
