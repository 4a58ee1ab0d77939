// A server of Leases on the generic API server library of Kubernetes: the genuine registry, storage, watch cache, conflicts and
// discovery. Only the strategy of Leases and the OpenAPI definitions are its own.
//
//	leaseserver -listen HOST:PORT -etcd URL [-token TOKEN]
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"

	apidiscovery "k8s.io/api/apidiscovery/v2"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	restclient "k8s.io/client-go/rest"
	"k8s.io/component-base/compatibility"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

var (
	scheme = runtime.NewScheme()
	codecs = serializer.NewCodecFactory(scheme)
	gv     = coordinationv1.SchemeGroupVersion
)

func init() {
	if err := coordinationv1.AddToScheme(scheme); err != nil {
		panic(err)
	}
	// The external type serves as the internal one, too: nothing is converted.
	scheme.AddKnownTypes(schema.GroupVersion{Group: gv.Group, Version: runtime.APIVersionInternal}, &coordinationv1.Lease{}, &coordinationv1.LeaseList{})
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	scheme.AddUnversionedTypes(schema.GroupVersion{Version: "v1"}, &metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{})
	if err := scheme.SetVersionPriority(gv); err != nil {
		panic(err)
	}
}

// As in pkg/registry/coordination/lease/strategy.go of kube-apiserver.
type strategy struct {
	runtime.ObjectTyper
	names.NameGenerator
}

func validate(o runtime.Object) field.ErrorList {
	l := o.(*coordinationv1.Lease)
	all := validation.ValidateObjectMeta(&l.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	p := field.NewPath("spec")
	if l.Spec.LeaseDurationSeconds != nil && *l.Spec.LeaseDurationSeconds <= 0 {
		all = append(all, field.Invalid(p.Child("leaseDurationSeconds"), *l.Spec.LeaseDurationSeconds, "must be greater than 0"))
	}
	if l.Spec.LeaseTransitions != nil && *l.Spec.LeaseTransitions < 0 {
		all = append(all, field.Invalid(p.Child("leaseTransitions"), *l.Spec.LeaseTransitions, "must be greater than or equal to 0"))
	}
	return all
}
func (strategy) NamespaceScoped() bool                                            { return true }
func (strategy) PrepareForCreate(context.Context, runtime.Object)                 {}
func (strategy) PrepareForUpdate(context.Context, runtime.Object, runtime.Object) {}
func (strategy) Validate(_ context.Context, o runtime.Object) field.ErrorList     { return validate(o) }
func (strategy) WarningsOnCreate(context.Context, runtime.Object) []string        { return nil }
func (strategy) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}
func (strategy) Canonicalize(runtime.Object)    {}
func (strategy) AllowCreateOnUpdate() bool      { return true }
func (strategy) AllowUnconditionalUpdate() bool { return false }
func (strategy) ValidateUpdate(_ context.Context, o, old runtime.Object) field.ErrorList {
	return append(validate(o), validation.ValidateObjectMetaUpdate(&o.(*coordinationv1.Lease).ObjectMeta, &old.(*coordinationv1.Lease).ObjectMeta, field.NewPath("metadata"))...)
}

// definitions describes Go types by reflection: what openapi-gen would have generated.
func definitions(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	out := map[string]common.OpenAPIDefinition{}
	for _, v := range []any{coordinationv1.Lease{}, coordinationv1.LeaseList{}, metav1.Status{}, metav1.DeleteOptions{}, metav1.Patch{}, metav1.WatchEvent{},
		metav1.APIGroup{}, metav1.APIGroupList{}, metav1.APIResourceList{}, metav1.APIVersions{}, apidiscovery.APIGroupDiscoveryList{}, runtime.TypeMeta{}, version.Info{}} {
		define(reflect.TypeOf(v), ref, out)
	}
	return out
}

func name(t reflect.Type) string {
	if n, ok := reflect.New(t).Interface().(util.OpenAPIModelNamer); ok {
		return n.OpenAPIModelName()
	}
	return t.PkgPath() + "." + t.Name()
}

func define(t reflect.Type, ref common.ReferenceCallback, out map[string]common.OpenAPIDefinition) {
	n := name(t)
	if _, ok := out[n]; ok {
		return
	}
	out[n] = common.OpenAPIDefinition{}
	s := spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}, Properties: map[string]spec.Schema{}}}
	type formatter interface {
		OpenAPISchemaType() []string
		OpenAPISchemaFormat() string
	}
	if f, ok := reflect.New(t).Interface().(formatter); ok {
		s = spec.Schema{SchemaProps: spec.SchemaProps{Type: f.OpenAPISchemaType(), Format: f.OpenAPISchemaFormat()}}
	} else if t.Kind() == reflect.Struct {
		fields(t, &s, ref, out)
	}
	var deps []string
	for k := range out {
		if k != n {
			deps = append(deps, k)
		}
	}
	out[n] = common.OpenAPIDefinition{Schema: s, Dependencies: deps}
}

func fields(t reflect.Type, s *spec.Schema, ref common.ReferenceCallback, out map[string]common.OpenAPIDefinition) {
	for i := 0; i < t.NumField(); i++ {
		f := t.Field(i)
		tag := strings.Split(f.Tag.Get("json"), ",")
		if f.PkgPath != "" || tag[0] == "-" {
			continue
		}
		if tag[0] == "" && f.Anonymous {
			fields(f.Type, s, ref, out)
			continue
		}
		if tag[0] != "" {
			s.Properties[tag[0]] = property(f.Type, ref, out)
		}
	}
}

func property(t reflect.Type, ref common.ReferenceCallback, out map[string]common.OpenAPIDefinition) spec.Schema {
	switch t.Kind() {
	case reflect.Pointer:
		return property(t.Elem(), ref, out)
	case reflect.String:
		return *spec.StringProperty()
	case reflect.Bool:
		return *spec.BoolProperty()
	case reflect.Int32:
		return *spec.Int32Property()
	case reflect.Int64, reflect.Int:
		return *spec.Int64Property()
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return *spec.StrFmtProperty("byte")
		}
		e := property(t.Elem(), ref, out)
		return *spec.ArrayProperty(&e)
	case reflect.Map:
		e := property(t.Elem(), ref, out)
		return *spec.MapProperty(&e)
	case reflect.Struct:
		define(t, ref, out)
		return spec.Schema{SchemaProps: spec.SchemaProps{Ref: ref(name(t))}}
	default:
		return *spec.MapProperty(nil)
	}
}

func main() {
	listen := flag.String("listen", "127.0.0.1:38080", "")
	etcd := flag.String("etcd", "http://127.0.0.1:38079", "")
	token := flag.String("token", "", "asked of every request, if it is not empty")
	flag.Parse()
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "leaseserver:", err)
			os.Exit(1)
		}
	}
	c := server.NewConfig(codecs)
	c.EffectiveVersion = compatibility.NewEffectiveVersionFromString("1.36", "", "")
	c.ExternalAddress = *listen
	c.LoopbackClientConfig = &restclient.Config{Host: *listen}
	namer := openapinamer.NewDefinitionNamer(scheme)
	c.OpenAPIV3Config = server.DefaultOpenAPIV3Config(definitions, namer)
	c.OpenAPIV3Config.Info.Title = "leases"
	c.OpenAPIConfig = server.DefaultOpenAPIConfig(definitions, namer)
	if *token != "" {
		c.Authentication.Authenticator = bearertoken.New(authenticator.TokenFunc(func(_ context.Context, given string) (*authenticator.Response, bool, error) {
			return &authenticator.Response{User: &user.DefaultInfo{Name: "elect"}}, given == *token, nil
		}))
	}
	c.Authorization.Authorizer = authorizerfactory.NewAlwaysAllowAuthorizer()
	o := options.NewEtcdOptions(storagebackend.NewDefaultConfig("/registry", codecs.LegacyCodec(gv)))
	o.StorageConfig.Transport.ServerList = strings.Split(*etcd, ",")
	o.StorageConfig.EncodeVersioner = runtime.NewMultiGroupVersioner(gv, schema.GroupKind{Group: gv.Group})
	check(o.ApplyTo(c))
	s, err := c.Complete(nil).New("leases", server.NewEmptyDelegate())
	check(err)
	st := strategy{scheme, names.SimpleNameGenerator}
	r := gv.WithResource("leases").GroupResource()
	store := &genericregistry.Store{
		NewFunc:                   func() runtime.Object { return &coordinationv1.Lease{} },
		NewListFunc:               func() runtime.Object { return &coordinationv1.LeaseList{} },
		DefaultQualifiedResource:  r,
		SingularQualifiedResource: gv.WithResource("lease").GroupResource(),
		CreateStrategy:            st, UpdateStrategy: st, DeleteStrategy: st,
		TableConvertor: rest.NewDefaultTableConvertor(r),
	}
	check(store.CompleteWithOptions(&generic.StoreOptions{RESTOptions: c.RESTOptionsGetter}))
	g := server.NewDefaultAPIGroupInfo(gv.Group, scheme, metav1.ParameterCodec, codecs)
	g.VersionedResourcesStorageMap["v1"] = map[string]rest.Storage{"leases": store}
	check(s.InstallAPIGroup(&g))
	p := s.PrepareRun()
	l, err := net.Listen("tcp", *listen)
	check(err)
	go func() { check(http.Serve(l, s.Handler)) }()
	fmt.Println("serving", *listen)
	check(p.RunWithContext(server.SetupSignalContext()))
}
