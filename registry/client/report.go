package client

import (
	"fmt"

	"deploytools/registry/wire"
)

// Report tells the registry what an agent is about, over the connection that
// stands: it makes none, and wire.ErrUnreachable says that there is none. It
// waits for nothing but room to write: the answer to the next poll names the
// report that the registry has. Only send it where an answer did before: others
// do not know the request.
func (c *Client) Report(r wire.Report) error {
	r.Instance = c.o.Instance
	payload, err := wire.EncodeReport(r)
	if err != nil {
		return err
	}
	if len(payload) > wire.MaxReportBytes {
		return fmt.Errorf("report has %d bytes, more than %d: %w", len(payload), wire.MaxReportBytes, wire.ErrReport)
	}
	c.mu.Lock()
	cn := c.conn
	c.mu.Unlock()
	if cn == nil || !cn.alive() {
		return c.unreachable(errNoConnection)
	}
	if _, _, err := cn.ssh.SendRequest(wire.ReportRequestType, false, payload); err != nil {
		return c.lost(err)
	}
	return nil
}
