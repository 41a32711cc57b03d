package policy

// Domain is one whose names those of the DNS servers know that have addresses of
// its family.
type Domain struct {
	Name string
	IPv6 bool
}
