package sftpfs

import (
	"context"
	"errors"
	"strings"

	"github.com/pkg/sftp"

	"deploytools/registry"
	"deploytools/registry/wire"
)

// recorder puts on record what a session asked for and may not do.
type recorder struct {
	ctx    context.Context
	r      *registry.Registry
	caller registry.Caller
	report func(error) // may be nil
}

// refusal looks at what came of a request. It is deferred before
// reporter.guard, so that it runs after it.
func (c recorder) refusal(r *sftp.Request, err *error) {
	status, _ := errors.AsType[*statusError](*err)
	hidden := status != nil && status.hidden
	if !hidden && !errors.Is(*err, sftp.ErrSSHFxPermissionDenied) {
		return
	}
	words := []string{"sftp", strings.ToLower(r.Method), r.Filepath}
	if r.Target != "" {
		words = append(words, r.Target)
	}
	act := registry.Act{Caller: c.caller, Command: words}
	reason := (*err).Error()
	if hidden {
		reason = "outside of the key's scope; the client was told: " + reason
	}
	failed := c.r.Refused(context.WithoutCancel(c.ctx), act, "", wire.Denied, reason)
	if failed != nil && c.report != nil {
		c.report(failed)
	}
}
