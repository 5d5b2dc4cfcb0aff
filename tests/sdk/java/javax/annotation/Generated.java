package javax.annotation;

/** The one class that the generated client needs and no JDK since 11 has. Builds get it from jakarta.annotation-api. */
public @interface Generated {
  String[] value();

  String comments() default "";
}
