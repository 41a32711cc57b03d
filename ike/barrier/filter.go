package barrier

// Filter drops the packets that a plan covers and that pass by the wrong
// interface. It belongs to the network namespace of the thread that opened it, and
// is used by threads of that alone.
type Filter interface {
	// Kind is the kernel's own name for what filters.
	Kind() string
	// Hears reports whether answers to what a socket with our mark has asked come
	// in, though a tunnel covers whom they are from.
	Hears() bool
	// Concerns reports whether an event may mean that something is missing.
	Concerns(e Event) bool
	// Set follows a plan, in place of the one before: at no moment does less
	// pass or more than by one of the two. It puts back what somebody has deleted.
	Set(p *Plan) error
	// Missing says what somebody has taken away or changed since Set, in a few
	// words; "" if nothing.
	Missing() (string, error)
	// Silent reports whether something is missing that no event tells of. It is
	// cheap to ask.
	Silent() bool
	// Remove takes the filter away, also that of an earlier run, and closes it.
	Remove() error
	// Close leaves the filter where it is.
	Close() error
}

// Options are the same for both kinds of filter.
type Options struct {
	Name string // of what is made in the kernel, one an instance
	TUN  string // the interface that covered packets go and come by
	Mark uint32 // of what the gateway itself sends; no two instances have the same
}
