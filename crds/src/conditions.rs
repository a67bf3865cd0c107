//! Condition types and reasons: the closed sets that people, Argo CD and alerts rely on.

/// Declares an enum whose names are its texts.
macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// All of them, in the order in which they are shown.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name as it stands in a condition.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

names! {
    /// Type of a condition.
    ConditionType {
        /// A write, a replica read, a Redis round trip and an API answer all work now.
        Ready,
        /// Present while the platform moves towards its spec.
        Reconciling,
        /// Present while something must be mended by a person before it can go on.
        Stalled,
        /// PostgreSQL has a primary and its replicas stream.
        DatabaseReady,
        /// Redis has a primary and a majority of Sentinels.
        CacheReady,
        /// The schema fits the release.
        MigrationsApplied,
        /// All wanted API pods of the release serve.
        ApiReady,
        /// Clients can come in.
        IngressReady,
        /// Rules, monitors and dashboards are in place.
        MonitoringReady,
    }
}

names! {
    /// Reason of a condition.
    Reason {
        /// All is as it should be.
        AllReady,
        /// This part is as it should be.
        Available,
        /// Switched off in the spec.
        Disabled,
        /// Run by somebody else.
        External,
        /// An earlier part is not ready yet.
        WaitingForDependency,
        /// Objects are made or pods start.
        Progressing,
        /// The spec is frozen.
        Paused,
        /// The object is being deleted.
        Deleting,
        /// The spec contradicts itself.
        InvalidSpec,
        /// An image cannot be pulled.
        ImagePullFailed,
        /// A container ends again and again.
        CrashLoop,
        /// No node takes a pod.
        Unschedulable,
        /// A quota or policy refuses a pod.
        PodsRefused,
        /// A volume is not bound, or has not grown yet.
        VolumePending,
        /// A volume cannot grow.
        VolumeNotExpandable,
        /// No instance takes writes.
        NoPrimary,
        /// A replica does not stream or is too far behind.
        ReplicaNotStreaming,
        /// A replica's data is too old to be read.
        ReplicaLagging,
        /// A service that somebody else runs cannot be used.
        Unreachable,
        /// A replica does not stream although it was copied anew.
        ReplicaBroken,
        /// Pods or parameters are brought to the spec one by one.
        RollingOut,
        /// Too few Sentinels to agree on a primary.
        NoQuorum,
        /// The migration runs.
        Migrating,
        /// The migration failed for good.
        MigrationFailed,
        /// Some API pods do not serve.
        PodsNotReady,
        /// A new API pod does not become ready.
        RolloutStuck,
        /// The platform's own end-to-end check fails.
        ProbeFailed,
        /// A Secret or one of its keys is missing.
        SecretMissing,
        /// An object of a needed name belongs to somebody else.
        NameConflict,
        /// The Kubernetes API refused a request.
        ApplyFailed,
        /// The operator has failed by a defect of its own.
        InternalError,
        /// Rules are in a ConfigMap, because prometheus-operator is not installed.
        ConfigMapsUsed,
        /// An older Ingress routes the host already.
        HostConflict,
        /// There is no such IngressClass.
        IngressClassMissing,
        /// cert-manager has not issued the certificate yet.
        CertificatePending,
        /// No controller has given the Ingress an address yet.
        AddressPending,
        /// The cluster has no Gateway API.
        GatewayApiMissing,
        /// The Gateway does not take the route.
        RouteNotAccepted,
    }
}
