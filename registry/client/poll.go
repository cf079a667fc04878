package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"deploytools/registry/wire"
)

// Poll asks for the newest revision of a configuration. A state without a
// Digest says that the registry shows none of this name.
//
// A registry of the original kind has no revisions. There the configuration is
// read instead, and its Revision is 0: only the Digest tells one from the next.
func (c *Client) Poll(ctx context.Context, name string) (wire.PollState, error) {
	states, errs := c.PollAll(ctx, []string{name})
	return states[0], errs[0]
}

// PollAll asks about several configurations, in as few requests as it takes. The
// results are in the order of names, each with its error: where the registry
// refuses to answer about one of them, the others are answered all the same.
func (c *Client) PollAll(ctx context.Context, names []string) ([]wire.PollState, []error) {
	var states []wire.PollState
	var errs []error
	for some := range slices.Chunk(names, wire.MaxPollNames) {
		var answers []wire.PollState
		err := c.call(ctx, c.o.Timeouts.Reply, func(ctx context.Context, cn *conn) (err error) {
			answers, err = c.pollTogether(ctx, cn, some)
			return err
		})
		if len(some) > 1 && err == nil && answers == nil { // each for itself
			for _, name := range some {
				state, err := c.Poll(ctx, name)
				states, errs = append(states, state), append(errs, err)
			}
			continue
		}
		if answers == nil {
			answers = make([]wire.PollState, len(some))
		}
		states, errs = append(states, answers...), append(errs, slices.Repeat([]error{err}, len(some))...)
	}
	return states, errs
}

// pollTogether is one request. Where the registry does not answer about several
// names it returns nothing; where it does not about one, that is read.
func (c *Client) pollTogether(ctx context.Context, cn *conn, names []string) ([]wire.PollState, error) {
	question := wire.PollRequest{Names: names, Instance: c.o.Instance}
	payload, err := wire.EncodePoll(question)
	if err != nil {
		return nil, err
	}
	topic := names[0]
	if len(names) > 1 {
		topic = several
	}
	if !cn.refuses(topic) {
		asked := time.Now()
		ok, answer, err := cn.ssh.SendRequest(wire.PollRequestType, true, payload)
		if err != nil {
			return nil, c.broken(ctx, cn, err)
		}
		cn.took(time.Since(asked))
		if ok {
			reply, err := wire.DecodePollReply(answer, question)
			if err != nil {
				return nil, fmt.Errorf("registry %s answers a poll with nonsense: %w", c.o.Addr, err)
			}
			return reply.Configurations, nil
		}
		cn.refused(topic)
	}
	if len(names) > 1 {
		return nil, nil
	}
	state, err := c.pollByReading(ctx, cn, names[0])
	return []wire.PollState{state}, err
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
