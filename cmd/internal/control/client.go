package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNotRunning says that nobody listens on the socket.
var ErrNotRunning = errors.New("the daemon is not running")

// Client speaks to a daemon's socket.
type Client struct {
	path string
	http http.Client
}

// NewClient makes a client; it connects when it is used.
func NewClient(path string) *Client {
	var d net.Dialer
	return &Client{path, http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", path)
		},
	}}}
}

// Get decodes what a path holds into v.
func (c *Client) Get(ctx context.Context, path string, v any) error {
	body, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	return json.NewDecoder(body).Decode(v)
}

// Act applies a verb to a connection or peer and returns to how many SAs.
func (c *Client) Act(ctx context.Context, verb, name string) (int, error) {
	b, err := json.Marshal(Act{name})
	if err != nil {
		return 0, err
	}
	body, err := c.do(ctx, http.MethodPost, "/v1/"+verb, b)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	var done Done
	err = json.NewDecoder(body).Decode(&done)
	return done.Applied, err
}

// Events calls take with each event, as JSON, until ctx ends or take fails.
// started is called when the subscription stands.
func (c *Client) Events(ctx context.Context, started func(), take func(json.RawMessage) error) error {
	body, err := c.do(ctx, http.MethodGet, "/v1/events", nil)
	if err != nil {
		return err
	}
	defer body.Close()
	started()
	d := json.NewDecoder(body)
	for {
		var e json.RawMessage
		if err := d.Decode(&e); err != nil {
			return err
		}
		if err := take(e); err != nil {
			return err
		}
	}
}

func (c *Client) do(ctx context.Context, method, path string, body []byte) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://ikepulse"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	a, err := c.http.Do(r)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return nil, fmt.Errorf("%w: nobody listens on %s", ErrNotRunning, c.path)
	case errors.Is(err, unix.EACCES):
		return nil, c.closed()
	case err != nil:
		return nil, err
	case a.StatusCode == http.StatusOK:
		return a.Body, nil
	}
	defer a.Body.Close()
	var f failure
	if json.NewDecoder(io.LimitReader(a.Body, 1<<20)).Decode(&f) != nil || f.Error == "" {
		f.Error = a.Status
	}
	return nil, errors.New(f.Error)
}

// closed says who could have connected, as far as the socket's file tells.
func (c *Client) closed() error {
	info, err := os.Stat(c.path)
	if err != nil {
		return fmt.Errorf("permission denied: only root may use what is in %s", filepath.Dir(c.path))
	}
	const byGroup = 0o020 // what connecting takes
	if info.Mode()&byGroup == 0 {
		return fmt.Errorf("permission denied: only root may use %s; the configuration's control.group and control.read_group let others in", c.path)
	}
	group := strconv.FormatUint(uint64(info.Sys().(*syscall.Stat_t).Gid), 10)
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return fmt.Errorf("permission denied: only root and members of group %s may use %s%s", group, c.path, loginCounts)
}
