package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/cmd/internal/cli"
	"deploytools/registry/console"
)

// Call asks the agent of the directory, and fills result, a pointer, with what it
// answers. note is called with what is said meanwhile. The error wraps ErrNobody
// where no agent answers; that of the agent has the status and the hint that it
// had there. Where ctx ends first, the agent gives up what it has not done yet.
func Call(ctx context.Context, dir, verb string, args any, note func(string), result any) error {
	c, err := dial(ctx, dir)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Now()) })
	defer stop()
	out, err := ask(c, dir, verb, args, note)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if len(out.Result) > 0 {
		if err := json.Unmarshal(out.Result, result); err != nil {
			return fmt.Errorf("cannot read the agent's answer: %w", err)
		}
	}
	if out.Error != "" {
		return &cli.Error{Status: out.Status, Hint: out.Hint, Err: errors.New(out.Error)}
	}
	return nil
}

func dial(ctx context.Context, dir string) (c net.Conn, err error) {
	err = at(dir, Name, func(path string) (err error) {
		c, err = new(net.Dialer).DialContext(ctx, "unix", path)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNobody)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot reach the agent: %w", err)
	}
	return c, nil
}

// ask sends the request to the agent of the directory and returns the last line of
// the answer.
func ask(c net.Conn, dir, verb string, args any, note func(string)) (last reply, err error) {
	r := request{Verb: verb}
	if args != nil {
		if r.Args, err = encode(args); err != nil {
			return last, err
		}
	}
	b, err := encode(r)
	if err != nil {
		return last, err
	}
	if _, err := c.Write(append(b, '\n')); err != nil && !errors.Is(err, unix.EPIPE) { // else it has said why
		return last, fmt.Errorf("cannot ask the agent: %w", err)
	}
	for in := json.NewDecoder(c); ; {
		last = reply{}
		err := in.Decode(&last)
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET):
			return last, cli.WithHint(errors.New("the agent ended before it answered"), "deploy-agent status -dir "+console.Join([]string{dir})+" says what it does")
		case err != nil:
			return last, fmt.Errorf("cannot read the agent's answer: %w", err)
		case last.Done:
			return last, nil
		}
		note(last.Note)
	}
}
