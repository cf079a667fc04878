package agent

import (
	"context"
	"errors"
	"fmt"
	"io"

	"deploytools/atomic"
	"deploytools/layers"
	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// ahead is a root that is filled while its layers are still being fetched. It
// decides nothing: it is of use only when every layer turned out to have its
// digest, and nobody sees the root before. Whatever else comes of it, it is
// deleted, and Unpacking does all of it from the cache, where a failure has its
// meaning.
//
// It goes on over cuts of the transfer. It is not begun when a process has ended
// in Fetching: if unpacking was why, Unpacking counts it.
type ahead struct {
	dir    string // of the root: Root.Dir
	staged *atomic.Dir
	layers map[digest.Digest]*arriving // those that are fetched
	cancel context.CancelCauseFunc

	done chan struct{} // closed when the rest is set
	info *layers.Info
	err  error
}

// errDropped says that what was unpacked ahead is not wanted any more.
var errDropped = errors.New("not wanted any more")

// unpackAhead begins to unpack c beside the fetch of the layers that are missing.
func (a *Agent) unpackAhead(ctx context.Context, c *wire.Configuration, missing []wire.Layer) error {
	from := a.takeOver()
	if err := a.numberRoot(); err != nil {
		return err
	}
	dir := a.rec.Deployment.New.Dir
	staged, err := atomic.Stage(a.path(dir))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	h := &ahead{dir: dir, staged: staged, layers: map[digest.Digest]*arriving{}, cancel: cancel, done: make(chan struct{})}
	for _, l := range missing {
		h.layers[l.Hash] = newArriving()
	}
	stack := a.stack(c)
	for i, l := range stack {
		if from := h.layers[l.Digest]; from != nil {
			stack[i].Open = func() (io.ReadCloser, error) { return beating{&follower{l: from}, &a.pulse}, nil }
		}
	}
	a.ahead = h
	go func() {
		defer close(h.done)
		h.info, h.err = a.tryUnpack(ctx, staged, stack, from)
		if h.err != nil { // the fetch may need the room
			h.err = errors.Join(h.err, staged.Abort())
		}
	}()
	return nil
}

// tryUnpack is unpackInto, but that a panic is only an error: Unpacking will have
// it again, where it counts.
func (a *Agent) tryUnpack(ctx context.Context, staged *atomic.Dir, stack []layers.Layer, from *layers.Reuse) (info *layers.Info, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error: %v", p)
		}
	}()
	return a.unpackInto(ctx, staged, stack, from)
}

// layer returns where the bytes of the layer are awaited; nil: nowhere.
func (h *ahead) layer(d digest.Digest) *arriving {
	if h == nil {
		return nil
	}
	return h.layers[d]
}

// wait returns when everything was unpacked, or could not be. Its error is that
// of ctx.
func (h *ahead) wait(ctx context.Context) error {
	if h == nil {
		return nil
	}
	select {
	case <-h.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// dropAhead deletes what was unpacked ahead.
func (a *Agent) dropAhead() {
	h := a.ahead
	if h == nil {
		return
	}
	a.ahead = nil
	h.cancel(errDropped)
	h.end()
	if h.err == nil {
		h.info.Close()
		h.err = h.staged.Abort()
	}
	a.log().Debug("root unpacked ahead dropped", "root", h.dir, "error", h.err)
}

// end waits for what was begun.
func (h *ahead) end() {
	for _, l := range h.layers {
		l.stop(errDropped)
	}
	<-h.done
	for _, l := range h.layers {
		l.close()
	}
}

// takeAhead returns what was unpacked ahead for the deployment's root, if it is
// all of it. The caller commits or aborts it.
func (a *Agent) takeAhead() (*atomic.Dir, *layers.Info) {
	h := a.ahead
	if h == nil {
		return nil, nil
	}
	<-h.done
	if h.err != nil || h.dir != a.rec.Deployment.New.Dir {
		a.dropAhead()
		return nil, nil
	}
	a.ahead = nil
	h.cancel(nil)
	h.end()
	return h.staged, h.info
}
