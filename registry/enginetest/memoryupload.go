package enginetest

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// memoryUpload is a registry.Upload. It stays usable after Close, as the spool
// gives the same one to the next caller of Resume.
type memoryUpload struct {
	mu      sync.Mutex // guards the following
	content []byte
	written time.Time
}

func (u *memoryUpload) state() (size int64, written time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return int64(len(u.content)), u.written
}

func (u *memoryUpload) ReadAt(p []byte, off int64) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if off < 0 {
		return 0, fmt.Errorf("offset %d is negative", off)
	}
	if off >= int64(len(u.content)) {
		return 0, io.EOF
	}
	n := copy(p, u.content[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (u *memoryUpload) WriteAt(p []byte, off int64) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if off < 0 {
		return 0, fmt.Errorf("offset %d is negative", off)
	}
	if end := off + int64(len(p)); end > int64(len(u.content)) {
		u.resize(end)
	}
	u.written = time.Now()
	return copy(u.content[off:], p), nil
}

func (u *memoryUpload) Truncate(size int64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if size < 0 {
		return fmt.Errorf("size %d is negative", size)
	}
	u.resize(size)
	u.written = time.Now()
	return nil
}

// resize cuts the content or fills it up with zeros; u.mu is held.
func (u *memoryUpload) resize(size int64) {
	if size <= int64(len(u.content)) {
		u.content = u.content[:size]
		return
	}
	u.content = append(u.content, make([]byte, size-int64(len(u.content)))...)
}

func (u *memoryUpload) Size() (int64, error) {
	size, _ := u.state()
	return size, nil
}

func (u *memoryUpload) Sync() error  { return nil }
func (u *memoryUpload) Close() error { return nil }
