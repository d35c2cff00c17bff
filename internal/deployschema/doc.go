// Package deployschema holds the files under deploy/ against the schemas they are written for:
// the Compose specification and the types of the Kubernetes API. It is a module of its own, so
// that the product does not depend on either.
package deployschema
