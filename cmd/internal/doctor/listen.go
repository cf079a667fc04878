package doctor

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// HTTP looks whether what -http says can be listened on: an address, or the path of a
// socket. Nobody may listen there for it.
func (d *Diagnosis) HTTP(ctx context.Context, addr string) {
	if strings.HasPrefix(addr, "/") {
		if d.In("-http", addr) {
			d.OK("-http", "%s", addr)
		}
		return
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		d.Fail("-http", "choose another -http, or end what listens there (ss -ltnp)", "%v", err)
		return
	}
	l.Close()
	d.OK("-http", "%s is free", addr)
}

// In looks whether there is a directory for the file that a flag names.
func (d *Diagnosis) In(flag, file string) bool {
	dir := filepath.Dir(file)
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return true
	}
	d.Fail(flag, "make the directory, or choose another place", "%s: there is no directory %s", file, dir)
	return false
}
